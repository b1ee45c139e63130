from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from rlcore.engines.vllm_engine import VLLMEngine
from rlcore.models.engine_environment import engine_env


@pytest.fixture(scope="module")
def engine_process() -> Iterator[None]:
    """vLLM in the tests' own process; what it set up ends with the module.

    An engine that is collected ends the process groups of every other one in its process, at whatever moment
    Python collects it: those of a module are kept until its end.
    """
    gc.collect()  # an engine of another module, which was still in somebody's hands when that ended
    engines: list[VLLMEngine] = []
    build = VLLMEngine.__init__

    def build_and_keep(self: VLLMEngine, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        engines.append(self)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in engine_env(cpu=True).items():
            patch.setenv(name, value)
        patch.setattr(VLLMEngine, "__init__", build_and_keep)
        yield
    engines.clear()
    gc.collect()
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
