"""The records of a push, and what a medium is at either end.

A medium is one class for either end, named in a `rlcore.config.weight_media.Medium`. It moves bytes and
knows neither tensors nor versions: `sender` packs and `receiver` verifies, whatever the medium.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor

from rlcore.config.targets import load_named
from rlcore.errors import ConfigError

Message = dict[str, Any]
"""A message between learner and engines, as JSON knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """An appointment: engines call the learner at its port, and the weights travel.

    Both ends are given the same record at the same time (`LearnerWorker.push_weights`,
    `RolloutWorker.update_weights`); neither end returns before every engine has taken every byte.
    """

    backend: str
    """The medium, as `weight_sync.backend` names it."""
    version: int
    """Policy version that these weights are."""
    id: int
    """Number of the sender's push: the same version may be pushed again, to an engine that was restarted."""
    engines: tuple[int, ...]
    """Rollout ranks that take part, all of them or none."""
    workers_per_engine: int
    """vLLM worker processes of an engine (tensor times pipeline parallel size)."""
    host: str
    """Address where the learner listens."""
    port: int
    """Port where the learner listens."""
    token: str
    """Secret that an engine shows to the learner; Ray alone brings this secret to the engines."""
    timeout_s: float
    """Deadline of the whole push in seconds, at either end."""

    @property
    def receivers(self) -> tuple[str, ...]:
        """Names of the worker processes that take part."""
        return tuple(
            receiver_name(engine, worker, self.workers_per_engine)
            for engine in self.engines
            for worker in range(self.workers_per_engine)
        )


def receiver_name(engine: int, worker: int, workers_per_engine: int) -> str:
    """Returns `rollout[1]`, with the worker's rank where an engine has several."""
    return f"rollout[{engine}]" + (f".worker{worker}" if workers_per_engine > 1 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushReport:
    """Figures of a push, once every engine has taken all weights."""

    version: int
    """Policy version that was pushed."""
    checksum: str
    """Checksum of all bytes, in order; every engine has computed the same. Empty where vLLM receives."""
    num_bytes: int
    """Bytes of all tensors."""
    num_buckets: int
    """Buckets that travelled; 0 where vLLM sends."""
    seconds: float
    """Seconds of the push at the learner."""
    wait_seconds: float
    """Part of `seconds` in which the learner waited for engines or for the medium."""


class MediumOut(Protocol):
    """The learner's end of a medium, where buckets leave: called with the bytes of a slot, and the number of
    slots.

    A medium that need not connect, or whose bytes are there once they are packed, leaves the rest as it is.
    """

    slots: tuple[Tensor, ...]
    """Buffers in main memory that buckets are packed into, uint8; empty once the medium is closed."""

    def __init__(self, num_bytes: int, num_slots: int): ...

    @abstractmethod
    def plan(self, held: list[Message]) -> Message:
        """Returns what receivers need for `MediumIn.connect`, given what each of them still holds."""
        ...

    def connect(self, timeout_s: float) -> None:
        """Connects to the receivers, which have the plan."""

    def send(self, slot: int, num_bytes: int) -> None:
        """Begins to send the first bytes of a slot to every receiver."""

    def wait(self, slot: int) -> None:
        """Waits until a slot's bytes have left.

        Raises:
            ConnectionError: a receiver is gone.
        """

    def reset(self) -> None:
        """Forgets all connections, after a push that failed."""

    def close(self) -> None:
        """Frees what the medium holds. Idempotent."""


class MediumIn(Protocol):
    """The engine's end of a medium, where buckets arrive at a worker process: built
    without arguments, for many pushes."""

    def held(self) -> Message:
        """Returns what is left of earlier pushes, for the sender's plan."""
        return {}

    @abstractmethod
    def connect(self, plan: Message, host: str, rank: int, timeout_s: float) -> None:
        """Connects to the sender on `host`, or stays connected.

        Args:
            plan: what the sender's end returned (`MediumOut.plan`).
            rank: number of this receiver, from 1.
        """
        ...

    @abstractmethod
    def receive(self, slot: int, num_bytes: int) -> Tensor:
        """Returns a uint8 buffer that begins with the bucket sent from this slot, valid until it is answered.

        Raises:
            ConnectionError: the sender or another receiver is gone.
        """
        ...

    def reset(self) -> None:
        """Forgets all connections, after a push that failed."""


End = TypeVar("End")


def load_end(target: str, kind: type[End]) -> type[End]:
    """Imports the class that is one end of a medium.

    Args:
        target: `module:Class`.
        kind: `MediumOut` or `MediumIn`.

    Raises:
        ConfigError: nothing there, no subclass of `kind`, or one that lacks a method.
    """
    found = load_named(target, key="weight_sync.backend")
    if not (isinstance(found, type) and kind in found.__mro__):
        raise ConfigError(
            f"weight_sync.backend: {target} is no subclass of rlcore.weight_sync.{kind.__name__}"
        )
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ConfigError(
            f"weight_sync.backend: {target} lacks {', '.join(missing)} of rlcore.weight_sync.{kind.__name__}"
        )
    return found
