"""Push by vLLM's packed NCCL broadcasts: from the learner's rank 0 to engines on GPUs of their own."""

from __future__ import annotations

import socket

from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

from rlcore.weight_sync.base import Push


def trainer_info(push: Push, *, rank: int, workers_per_engine: int, bucket_bytes: int) -> NCCLTrainerInitInfo:
    """Returns what vLLM's sender is set up with; a `rlcore.weight_sync.vllm_native.TrainerInfo`."""
    return NCCLTrainerInitInfo(
        master_address=push.host,
        master_port=_free_port(),
        world_size=1 + len(push.engines) * workers_per_engine,
        packed_buffer_size_bytes=bucket_bytes,
        rank=rank,
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])
