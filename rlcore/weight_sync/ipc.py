"""Push by vLLM's CUDA handles: every learner rank lends the engine on its own GPU its memory."""

from __future__ import annotations

from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

from rlcore.weight_sync.base import Push


def trainer_info(push: Push, *, rank: int, workers_per_engine: int, bucket_bytes: int) -> IPCTrainerInitInfo:
    """Returns what vLLM's sender is set up with; a `rlcore.weight_sync.vllm_native.TrainerInfo`."""
    return IPCTrainerInitInfo(packed=True, packed_buffer_size_bytes=bucket_bytes, rank=rank)
