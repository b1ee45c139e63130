from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlcore.engines.environment import engine_env


@pytest.fixture(scope="module")
def engine_process() -> Iterator[None]:
    """vLLM in the tests' own process; what it set up ends with the module."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in engine_env(cpu=True).items():
            patch.setenv(name, value)
        yield
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
