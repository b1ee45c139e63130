"""Weights from the learner into running engines: one file a medium, every push versioned and checked.

    learner                                     engine
    sender.announce(version, engines) -> Push   (the controller carries it to both)
    sender.push(push, weights)                  receiver.take(llm, push)

Both run at the same time: while engines load a bucket, the learner gathers the next one. The media stand in
`rlcore.config.weight_media`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from rlcore.config import WeightSyncConfig
from rlcore.config.weight_media import MEDIA, medium_of
from rlcore.errors import ConfigError
from rlcore.weight_sync.base import MediumIn, MediumOut, Push, PushReport
from rlcore.weight_sync.engine import BucketEngineReceiver, EngineReceiver
from rlcore.weight_sync.sender import BucketSender, WeightSender


def make_sender(
    config: WeightSyncConfig,
    shapes: Iterable[tuple[str, tuple[int, ...]]],
    *,
    dtype: str,
    rank: int = 0,
    host: str = "127.0.0.1",
) -> WeightSender | None:
    """Returns a learner rank's end, for tensors of these (hub name, full shape) that travel as `dtype`.
    Returns `None` where this rank only takes part in gathering.

    Args:
        host: address of this node, as the engines reach it.

    Raises:
        ConfigError: the backend needs a GPU, and this process sees none; or an end of it does not fit.
    """
    check_platform(config.backend)
    medium = config.medium
    if rank > 0 and not medium.every_rank_sends:
        return None
    if medium.receiver is not None:
        host = "127.0.0.1" if medium.one_machine else host
        return BucketSender(config, shapes, dtype=dtype, host=host)
    from rlcore.weight_sync.vllm_native import NativeSender

    return NativeSender(config, shapes, dtype=dtype, host=host, rank=rank)


def make_receiver(backend: str, *, rank: int, model_path: str) -> EngineReceiver:
    """Returns the end of rollout engine `rank`, whose model was built from the checkpoint at `model_path`.

    Raises:
        ConfigError: the backend is unknown, or needs a GPU, and this process sees none.
    """
    check_platform(backend)
    if medium_of(backend).receiver is not None:
        return BucketEngineReceiver(backend, rank)
    from rlcore.weight_sync.vllm_native import NativeEngineReceiver

    return NativeEngineReceiver(rank, model_path)


def check_platform(backend: str) -> None:
    """Raises ConfigError where a backend moves weights between GPUs and this process sees none."""
    if medium_of(backend).gpus != "none" and not torch.cuda.is_available():
        on_cpus = [medium for medium in MEDIA.values() if medium.gpus == "none"]
        use = " or ".join(f"{m.name} ({'one machine' if m.one_machine else 'several'})" for m in on_cpus)
        raise ConfigError(
            f"weight_sync.backend: got {backend!r}, which moves weights between GPUs, and this process sees "
            f"none; use {use}, or give learner and rollout num_gpus"
        )


__all__ = [
    "EngineReceiver",
    "MediumIn",
    "MediumOut",
    "Push",
    "PushReport",
    "WeightSender",
    "check_platform",
    "make_receiver",
    "make_sender",
]
