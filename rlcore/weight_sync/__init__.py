"""Weights from the learner into running engines: one file a medium, every push versioned and checked.

    learner                                     engine
    sender.announce(version, engines) -> Push   (the controller carries it to both)
    sender.push(push, weights)                  engine.apply_weights(push)

Both run at the same time: while engines load a bucket, the learner gathers the next one.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from rlcore.config import WeightSyncConfig
from rlcore.errors import ConfigError
from rlcore.weight_sync.base import Push, PushReport, WeightSender
from rlcore.weight_sync.gloo import GlooOut
from rlcore.weight_sync.sender import BucketSender
from rlcore.weight_sync.shared_memory import SharedMemoryOut

_MEDIA = {"shared_memory": SharedMemoryOut, "gloo": GlooOut}


def make_sender(
    config: WeightSyncConfig,
    shapes: Iterable[tuple[str, tuple[int, ...]]],
    *,
    dtype: str,
    rank: int = 0,
    host: str = "127.0.0.1",
) -> WeightSender | None:
    """A learner rank's end, for tensors of these (hub name, full shape), travelling as `dtype`; `None` where
    this rank only takes part in gathering.

    Args:
        host: address of this node, as the engines reach it.

    Raises:
        ConfigError: the backend needs a GPU, and this process sees none.
    """
    backend = config.backend
    if backend not in _MEDIA:
        check_platform(backend)
    if rank > 0 and backend != "ipc":
        return None
    bucket_bytes = int(config.bucket_mb * 2**20)
    if backend in _MEDIA:
        host = "127.0.0.1" if backend == "shared_memory" else host
        return BucketSender(
            backend,
            _MEDIA[backend],
            shapes,
            dtype=dtype,
            bucket_bytes=bucket_bytes,
            host=host,
            timeout_s=config.timeout_s,
        )
    from rlcore.weight_sync.vllm_native import NativeSender

    return NativeSender(
        backend,
        shapes,
        dtype=dtype,
        bucket_bytes=bucket_bytes,
        host=host,
        timeout_s=config.timeout_s,
        rank=rank,
    )


def check_platform(backend: str) -> None:
    """Raises ConfigError where a backend moves weights between GPUs and this process sees none."""
    if backend in ("nccl", "ipc") and not torch.cuda.is_available():
        raise ConfigError(
            f"weight_sync.backend: got {backend!r}, which moves weights between GPUs, and this process sees "
            "none; use shared_memory (one machine) or gloo (several), or give learner and rollout num_gpus"
        )


__all__ = ["Push", "PushReport", "WeightSender", "check_platform", "make_sender"]
