from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import make_text
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from rlcore.engines import weights
from rlcore.errors import ConfigError
from rlcore.models.checkpoint_names import check_trained
from rlcore.models.hf_model import load_model, save_checkpoint


def pushed(path: str) -> list[tuple[str, tuple[int, ...]]]:
    model = load_model(path)
    whole = weights.model_weights(model, media=False)
    return [(weight.hub_name, weight.shape) for weight in weights.in_parts(model, whole)]


def test_a_dense_model_fits_its_checkpoint(tmp_path: Path) -> None:
    path = str(make_text(tmp_path))
    check_trained(pushed(path), path)
    with pytest.raises(ConfigError, match="parameters of the language model are missing"):
        check_trained(pushed(path)[:-1], path)


EXPERTS = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "num_experts_per_tok": 1,
}


def test_a_mixture_fits_expert_by_expert_and_is_saved_as_transformers_saves_it(tmp_path: Path) -> None:
    config = Qwen3MoeConfig(**EXPERTS, moe_intermediate_size=16, num_experts=3)
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path / "theirs")
    model = load_model(str(tmp_path / "theirs"))
    save_checkpoint(model, tmp_path / "ours")
    theirs, ours = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    in_parts = {weight.hub_name: weight for weight in weights.in_parts(model, weights.model_weights(model))}
    assert theirs.keys() == ours.keys() == in_parts.keys()
    assert "model.layers.1.mlp.experts.2.up_proj.weight" in theirs
    for name, tensor in theirs.items():
        assert torch.equal(tensor, ours[name]) and torch.equal(tensor, in_parts[name].tensor()), name
        assert in_parts[name].shape == tuple(tensor.shape)
    check_trained([(name, weight.shape) for name, weight in in_parts.items()], str(tmp_path / "ours"))


def test_a_mixture_of_another_form_is_refused_before_anything_is_generated(tmp_path: Path) -> None:
    MixtralForCausalLM(MixtralConfig(**EXPERTS, num_local_experts=2)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"no model\.layers\.0\.mlp\..* take a dense model, or a mixture"):
        check_trained(pushed(str(tmp_path)), str(tmp_path))
