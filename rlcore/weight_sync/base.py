"""What every medium of weight synchronisation has in common: the records of a push, and the learner's end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """An appointment: engines call the learner at its port, and the weights travel.

    Both ends are given the same record at the same time (`LearnerWorker.push_weights`,
    `RolloutWorker.update_weights`); neither end returns before every engine has taken every byte.
    """

    backend: str
    """Key of `rlcore.weight_sync.SENDERS`, and the name of vLLM's weight transfer backend."""
    version: int
    """Policy version that these weights are."""
    id: int
    """Counts a sender's pushes: the same version may be pushed again, to an engine that was restarted."""
    engines: tuple[int, ...]
    """Rollout ranks that take part, all of them or none."""
    workers_per_engine: int
    """vLLM worker processes of an engine (tensor times pipeline parallel size)."""
    host: str
    """Where the learner listens."""
    port: int
    token: str
    """What an engine shows there; it reaches the engines through Ray alone."""
    timeout_s: float
    """Deadline of the whole push, at either end."""

    @property
    def receivers(self) -> tuple[str, ...]:
        """Names of the worker processes that take part."""
        return tuple(
            receiver_name(engine, worker, self.workers_per_engine)
            for engine in self.engines
            for worker in range(self.workers_per_engine)
        )


def receiver_name(engine: int, worker: int, workers_per_engine: int) -> str:
    """`rollout[1]`, with the worker's rank where an engine has several."""
    return f"rollout[{engine}]" + (f".worker{worker}" if workers_per_engine > 1 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushReport:
    """What the sender did, once every engine has taken it."""

    version: int
    checksum: str
    """Of all bytes, in order; every engine has computed the same. Empty where the medium takes none."""
    num_bytes: int
    num_buckets: int
    seconds: float
    wait_seconds: float
    """Part of `seconds` in which the learner waited for engines or for the medium."""


class WeightSender(Protocol):
    """The learner's end. One sender lives as long as its learner and pushes many versions."""

    def announce(self, version: int, engines: Iterable[int], *, workers_per_engine: int = 1) -> Push:
        """Makes the appointment. Only the latest one is kept."""
        ...

    def push(self, push: Push, tensors: Iterable[tuple[str, Tensor]]) -> PushReport:
        """Sends the tensors (hub name, full tensor), in the order announced to `make_sender`. Exhausts the
        iterator even where it fails: other ranks gather along.

        Raises:
            WeightSyncError: an engine refused them, or did not come or answer in time; it is named.
        """
        ...

    def close(self) -> None:
        """Frees what the sender holds. Idempotent."""
        ...
