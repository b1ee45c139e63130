from __future__ import annotations

import pytest

from rlcore.models.engine_environment import engine_env, growing_blocks_env


def test_on_gpus_vllm_says_what_it_warns_of() -> None:
    assert engine_env(cpu=False)["VLLM_LOGGING_LEVEL"] == "WARNING"
    assert engine_env(cpu=True)["VLLM_LOGGING_LEVEL"] == "ERROR"


@pytest.mark.parametrize("name", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_the_users_settings_of_torchs_allocator_stay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        monkeypatch.delenv(each, raising=False)
    assert growing_blocks_env() == {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    monkeypatch.setenv(name, "max_split_size_mb:64")
    assert growing_blocks_env() == {}
