"""The products of experts, in the dtype that autocast asks for."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tiny_models import make_causal_lm

from rlcore.models.hf_model import decoder_of, load_model, multiplied_weights, save_checkpoint

SIZES = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal_lm(tmp_path_factory.mktemp("mixture"), "Qwen3Moe", **SIZES)


def test_autocast_rounds_what_is_multiplied_and_nothing_else(path: Path) -> None:
    experts = decoder_of(load_model(str(path))).layers[0].mlp.experts
    torch.manual_seed(0)
    hidden, chosen = torch.randn(10, 64), torch.stack([torch.randperm(4)[:2] for _ in range(10)])
    inputs = hidden, chosen, torch.rand(10, 2)
    weights, upstream = list(experts.parameters()), torch.randn(10, 64)
    exact = experts(*inputs)
    exact_grads = torch.autograd.grad(exact, weights, upstream)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = experts(*inputs)
    grads = torch.autograd.grad(rounded, weights, upstream)

    assert torch.equal(rounded, copy.deepcopy(experts).bfloat16()(*inputs))
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02 * float(exact.detach().abs().max()))
    for ours, true in zip(grads, exact_grads, strict=True):
        assert ours.dtype == torch.float32 and (ours - true).norm() < 0.02 * true.norm()


def test_experts_compute_what_transformers_has_them_compute(path: Path) -> None:
    model, tokens = load_model(str(path)), torch.arange(20, 40)[None]
    own = model(tokens).logits
    decoder_of(model).config._experts_implementation = "eager"
    torch.testing.assert_close(model(tokens).logits, own, rtol=1e-4, atol=1e-5)


def test_what_autocast_rounds_is_all_but_norms_router_and_embedding(path: Path, tmp_path: Path) -> None:
    model = load_model(str(path))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rounded = {names[id(weight)] for weight in multiplied_weights(model)}
    left = set(names.values()) - rounded
    assert {name.split(".")[-2] for name in rounded} >= {"experts", "q_proj", "o_proj", "lm_head"}
    assert all("norm" in name or name.endswith(("mlp.gate.weight", "embed_tokens.weight")) for name in left)
    # How its experts are computed is not written down for others.
    save_checkpoint(model, tmp_path / "saved", processor=None)
    assert "rlcore" not in (tmp_path / "saved" / "config.json").read_text()
