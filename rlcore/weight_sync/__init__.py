"""Weights from the learner into running engines: one file a medium, every push versioned and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rlcore.errors import ConfigError
from rlcore.weight_sync.base import Push, WeightSender
from rlcore.weight_sync.shared_memory import SharedMemorySender

SENDERS: dict[str, Callable[..., WeightSender]] = {"shared_memory": SharedMemorySender}
"""Senders by `weight_sync.backend`. Each has a receiver that `rlcore.engines.vllm_plugin` registers."""


def make_sender(backend: str, shapes: Iterable[tuple[str, tuple[int, ...]]], *, dtype: str) -> WeightSender:
    """The learner's end of a medium, for tensors of these (hub name, full shape), travelling as `dtype`.

    Raises:
        ConfigError: an unknown backend.
    """
    if backend not in SENDERS:
        raise ConfigError(f"weight_sync.backend: got {backend!r}; allowed are {sorted(SENDERS)}")
    return SENDERS[backend](shapes, dtype=dtype)


__all__ = ["SENDERS", "Push", "WeightSender", "make_sender"]
