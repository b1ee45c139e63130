from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import make_qwen2_audio, make_text
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from rlcore.config import LoRAConfig
from rlcore.engines import weights
from rlcore.engines.trainable import add_lora, freeze
from rlcore.errors import ConfigError, WeightSyncError
from rlcore.models.checkpoint_names import check_names, check_trained, checkpoint_shapes
from rlcore.models.hf_model import load_config, load_model, save_checkpoint
from rlcore.models.names import block_of


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


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.layers.3.self_attn.q_proj.weight", "model.layers.3.self_attn"),
        ("thinker.model.layers.3.self_attn.k_proj.bias", "thinker.model.layers.3.self_attn"),
        ("model.layers.3.mlp.gate_proj.weight", "model.layers.3.mlp"),
        ("model.layers.3.mlp.experts.17.up_proj.weight", "model.layers.3.mlp"),
        ("model.layers.3.mlp.experts.gate_up_proj", "model.layers.3.mlp"),
        ("model.layers.3.mlp.shared_expert.up_proj.weight", "model.layers.3.mlp.shared_expert"),
        ("model.layers.3.input_layernorm.weight", "model.layers.3"),
        ("model.embed_tokens.weight", "model"),
        ("lm_head.weight", ""),
    ],
)
def test_what_engines_hold_as_one_is_one_block(name: str, block: str) -> None:
    assert block_of(name) == block


def test_a_push_of_what_adapters_change_has_whole_blocks(tmp_path: Path) -> None:
    config = Qwen3MoeConfig(**EXPERTS, moe_intermediate_size=16, num_experts=3)
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path)
    model, path = load_model(str(tmp_path)), str(tmp_path)
    add_lora(model, LoRAConfig(rank=2, target_modules=("v_proj",)), ())
    shapes = [(weight.hub_name, weight.shape) for weight in weights.changed_weights(model)]
    parts = ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")
    expected = {f"model.layers.{i}.self_attn.{part}.weight" for i in range(2) for part in parts}
    assert {name for name, _ in shapes} == expected
    checkpoint, model_config = checkpoint_shapes(path), load_config(path)
    check_names(shapes, checkpoint, model_config)
    with pytest.raises(WeightSyncError, match=r"1 parameters .* among them model.layers.1.self_attn.k_proj"):
        check_names([s for s in shapes if "1.self_attn.k_proj" not in s[0]], checkpoint, model_config)

    freeze(model, ("layers.0", "embed", "norm", "lm_head", "self_attn", "gate.weight", "down_proj"))
    changed = [weight.hub_name for weight in weights.changed_weights(model)]
    experts = [
        f"model.layers.1.mlp.experts.{e}.{p}_proj.weight" for e in range(3) for p in ("gate", "up", "down")
    ]
    assert sorted(changed) == sorted(["model.layers.1.mlp.gate.weight", *experts])


def test_what_engines_hold_as_one_is_pushed_whole_in_a_tower_too(tmp_path: Path) -> None:
    model = load_model(str(make_qwen2_audio(tmp_path)))
    add_lora(model, LoRAConfig(rank=2, target_modules=("v_proj",)), ("language_model", "lm_head"))
    tower = "audio_tower.layers.0.self_attn."
    expected = {
        name
        for name in checkpoint_shapes(str(tmp_path))
        if name.startswith("audio_tower.layers.") and ".self_attn." in name
    }
    assert {f"{tower}k_proj.weight", f"{tower}q_proj.bias"} < expected
    assert {weight.hub_name for weight in weights.changed_weights(model)} == expected
    whole = {weight.hub_name for weight in weights.rollout_weights(model)}
    assert {name for name in whole if name.startswith("audio_tower.")} == expected


def test_a_model_that_is_trained_whole_is_pushed_whole(tmp_path: Path) -> None:
    model = load_model(str(make_text(tmp_path)))
    whole, changed = weights.rollout_weights(model), weights.changed_weights(model)
    assert [weight.name for weight in whole] == [weight.name for weight in changed]
