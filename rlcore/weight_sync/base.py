"""What every medium of weight synchronisation has in common: a sender, and the record of one push."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One push of weights, small enough to send to every rollout actor; the weights stay where they lie."""

    backend: str
    """Key of `rlcore.weight_sync.SENDERS`, and the name of vLLM's weight transfer backend."""
    version: int
    """Policy version that these weights are."""
    update_info: dict[str, Any]
    """What the engine's receiver needs to find and check them, in plain values."""


class WeightSender(Protocol):
    """The learner's end. One sender lives as long as its learner and pushes many versions."""

    def push(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> Push:
        """Makes the tensors (hub name, full tensor) available as `version`. The push before it must have been
        applied by every engine, because its memory is written over."""
        ...

    def close(self) -> None:
        """Frees what the sender holds. Idempotent."""
        ...
