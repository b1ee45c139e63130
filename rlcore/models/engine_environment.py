"""The environment of a process that builds a vLLM engine. This module imports nothing, so that the
environment is known before the process starts."""

from __future__ import annotations


def engine_env(*, cpu: bool) -> dict[str, str]:
    """Returns environment variables for a process that builds a `VLLMEngine`."""
    env = {
        # The engine's loop in this process: in one of its own it would step in the middle of a push.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if cpu:
        env |= {
            "OMP_NUM_THREADS": "1",  # a second thread on a shared core costs a factor of twenty
            "TORCHDYNAMO_DISABLE": "1",  # else the first answer waits 20 s for a compiler
            "CUDA_VISIBLE_DEVICES": "",
        }
    return env
