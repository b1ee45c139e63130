from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import make_text
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from rlcore.engines.hf_model import checkpoint_parameters, load_model
from rlcore.errors import ConfigError
from rlcore.weight_sync.checkpoint_names import check_trained


def pushed(path: str) -> list[tuple[str, tuple[int, ...]]]:
    model = load_model(path)
    state = model.state_dict()
    return [(name, tuple(state[own].shape)) for own, name in checkpoint_parameters(model, media=False)]


def test_a_dense_model_fits_its_checkpoint(tmp_path: Path) -> None:
    path = str(make_text(tmp_path))
    check_trained(pushed(path), path)
    with pytest.raises(ConfigError, match="parameters of the language model are missing"):
        check_trained(pushed(path)[:-1], path)


def test_a_mixture_of_experts_is_refused_before_anything_is_generated(tmp_path: Path) -> None:
    config = Qwen3MoeConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_experts=2,
        num_experts_per_tok=1,
    )
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"no model\.layers\.0\.mlp\.experts\..* take a dense model"):
        check_trained(pushed(str(tmp_path)), str(tmp_path))
