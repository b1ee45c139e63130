"""The environment of a process that builds a vLLM engine, or trains on a GPU. This module imports nothing
large, so that the environment is known before the process starts."""

from __future__ import annotations

import os


def engine_env(*, cpu: bool) -> dict[str, str]:
    """Returns environment variables for a process that builds a `VLLMEngine`."""
    env = {
        # The engine's loop in this process: in one of its own it would step in the middle of a push.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        # On GPUs its warnings tell of weights that were not loaded, and of memory.
        "VLLM_LOGGING_LEVEL": "ERROR" if cpu else "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if cpu:
        env |= {
            "OMP_NUM_THREADS": "1",  # a second thread on a shared core costs a factor of twenty
            "TORCHDYNAMO_DISABLE": "1",  # else the first answer waits 20 s for a compiler
            "CUDA_VISIBLE_DEVICES": "",
        }
    return env


def growing_blocks_env() -> dict[str, str]:
    """Returns the environment of a process that trains or scores on a GPU: torch's blocks of memory grow.
    Lengths differ from batch to batch, and would leave holes between blocks of fixed sizes. The result is
    empty where the user has settings for torch's allocator.

    Such blocks suit neither an engine that sleeps nor a process that lends tensors to others by CUDA's
    handles (`weight_sync.backend: ipc`).
    """
    names = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    return {} if any(name in os.environ for name in names) else {names[0]: "expandable_segments:True"}
