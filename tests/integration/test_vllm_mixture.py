"""Mixtures of experts in vLLM. In a module of their own: a process that had an engine for a dense model has
no process group for experts."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_cases import check_adapters, check_raw_audio
from tiny_models import make_causal_lm, make_qwen3_omni

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("engine_process")]


def test_qwen3_omni_takes_raw_audio_and_a_trained_tower(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="needs torchvision (python -m rlcore.engines.torchvision_shim)")
    check_raw_audio(str(make_qwen3_omni(tmp_path)))


def test_adapters_beside_experts_are_pushed_alone(tmp_path: Path) -> None:
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 32}
    check_adapters(str(make_causal_lm(tmp_path, "Qwen3Moe", **sizes)))
