from __future__ import annotations

from typing import Any

import pytest
from transformers import Qwen2Config

from rlcore.engines.vllm_arguments import _gpu_arguments, engine_arguments
from rlcore.models.engine_environment import engine_env


@pytest.mark.parametrize(
    ("engine", "backend"),
    [({}, None), ({"tensor_parallel_size": 2}, "mp"), ({"pipeline_parallel_size": 2}, "mp")],
)
def test_an_engine_of_several_gpus_has_processes_of_its_own(engine: dict[str, Any], backend: str) -> None:
    """Ray's executor wants a bundle for each GPU, and the actor holds them all in one."""
    assert _gpu_arguments(engine, can_sleep=True).get("distributed_executor_backend") == backend


@pytest.mark.parametrize("cpu", [True, False])
def test_engines_step_in_the_process_that_takes_the_weights(cpu: bool) -> None:
    assert engine_env(cpu=cpu)["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


@pytest.mark.slow
def test_weights_are_never_unpickled_unless_asked_for() -> None:
    config = Qwen2Config(architectures=["Qwen2ForCausalLM"])
    assert engine_arguments(config, "raw", {})["load_format"] == "safetensors"
    assert engine_arguments(config, "raw", {"load_format": "dummy"})["load_format"] == "dummy"
