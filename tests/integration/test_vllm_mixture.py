"""Mixtures of experts in vLLM. In a module of their own: a process that had an engine for a dense model has
no process group for experts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cpu_nccl import Member, cpu_nccl
from engine_cases import (
    ENGINE,
    check_adapters,
    check_first_push,
    check_raw_audio,
    perturb,
    sender_of,
    weights,
)
from tiny_models import make_causal_lm, make_qwen3_omni
from weight_pushes import push_to

from rlcore.engines.vllm_engine import VLLMEngine
from rlcore.errors import MixedWeightsError, WeightSyncError
from rlcore.models.hf_model import load_model, load_processor, save_checkpoint

__all__ = ["cpu_nccl"]

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 32}

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("engine_process")]


def test_qwen3_omni_takes_raw_audio_and_a_trained_tower(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="needs torchvision (python -m rlcore.engines.torchvision_shim)")
    check_raw_audio(str(make_qwen3_omni(tmp_path)))


def test_an_engine_that_is_pushed_to_by_vllms_nccl_holds_what_the_learner_does(
    tmp_path: Path, cpu_nccl: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine, its worker and vLLM's two ends of `nccl` are real ones, the collective is cpu_nccl's."""
    path = str(make_causal_lm(tmp_path, "Qwen3Moe", **EXPERTS))
    model, engine = load_model(path), VLLMEngine(path, engine_args=ENGINE, weight_backend="cpu_nccl:MEDIUM")
    check_first_push(engine, model, backend="cpu_nccl:MEDIUM")

    perturb(model, 1, media=False)
    sender = sender_of(model, media=False, backend="cpu_nccl:MEDIUM", timeout_s=5)
    broadcast = Member.broadcast

    def hang(self: Member, tensor: torch.Tensor) -> None:
        if self.rank == 1 and self._num_calls == 9:
            self._group = type(self._group)()
        broadcast(self, tensor)

    monkeypatch.setattr(Member, "broadcast", hang)
    with pytest.raises(MixedWeightsError):
        push_to(sender, 5, weights(model, media=False), [engine.apply_weights])
    with pytest.raises(WeightSyncError, match="cannot generate since a push failed midway"):
        engine.check_whole()
    monkeypatch.setattr(Member, "broadcast", broadcast)
    assert all(member.is_destroyed for member in cpu_nccl)
    sender._port.timeout_s = 60
    push_to(sender, 6, weights(model, media=False), [engine.apply_weights])
    by_nccl = engine.weight_digests()
    sender.close()
    save_checkpoint(model, tmp_path / "moved", processor=load_processor(path))
    assert by_nccl == VLLMEngine(str(tmp_path / "moved"), engine_args=ENGINE).weight_digests()


def test_adapters_beside_experts_are_pushed_alone(tmp_path: Path) -> None:
    check_adapters(str(make_causal_lm(tmp_path, "Qwen3Moe", **EXPERTS)))
