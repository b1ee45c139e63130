"""A rollout engine's end of every push, in the process that drives vLLM: asks vLLM to take the weights.

Which of vLLM's calls these are depends on who receives in the worker processes: rlcore's own receiver
(`vllm_receiver`), or vLLM's (`vllm_native`). The engine knows neither.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from rlcore.weight_sync.base import Push

if TYPE_CHECKING:
    from vllm import LLM


class EngineReceiver(Protocol):
    """The engine's end of many pushes."""

    def attach(self, llm: LLM) -> None:
        """Makes a new engine ready for pushes."""
        ...

    def take(self, llm: LLM, push: Push) -> None:
        """Takes part in a push, and returns once all weights are replaced.

        Raises:
            WeightSyncError: the push does not fit, is damaged or was called off; nothing has been touched.
            MixedWeightsError: the push failed after some weights had been replaced.
        """
        ...


class BucketEngineReceiver:
    """The end of an engine whose workers take buckets (`rlcore.weight_sync.vllm_receiver`)."""

    def __init__(self, backend: str, rank: int):
        self._backend, self._rank = backend, rank

    def attach(self, llm: LLM) -> None:
        """Tells every worker which medium brings the buckets."""
        llm.init_weight_transfer_engine({"init_info": {"backend": self._backend}})

    def take(self, llm: LLM, push: Push) -> None:
        """Hands the push to every worker; raises as `EngineReceiver.take`."""
        llm.start_weight_update()
        llm.update_weights({"update_info": {"push": asdict(push), "engine": self._rank}})
        llm.finish_weight_update(weight_version=str(push.version))
