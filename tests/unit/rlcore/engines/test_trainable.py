from __future__ import annotations

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlcore.config import LoRAConfig, ModelConfig
from rlcore.engines.trainable import add_lora, checkpoint_activations, freeze
from rlcore.engines.weights import adapter_weights, model_weights
from rlcore.errors import ConfigError

TOKENS = torch.arange(12).view(2, 6)


def tiny(**changes: object) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 40}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, **changes)).float().eval()


def trained(model: torch.nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_default_patterns_may_match_nothing_in_a_text_model() -> None:
    model = tiny()
    freeze(model, ModelConfig().freeze)
    assert len(trained(model)) == len(list(model.parameters()))


def test_frozen_is_what_a_pattern_matches() -> None:
    model = tiny()
    freeze(model, ("embed_tokens", "layers.0."))
    assert trained(model) and not [n for n in trained(model) if "embed_tokens" in n or "layers.0." in n]
    freeze(model, ())
    assert len(trained(model)) == len(list(model.parameters()))


def test_a_pattern_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"model\.freeze: 'embed_token_' .* did you mean embed_tokens"):
        freeze(tiny(), ("embed_token_",))
    with pytest.raises(ConfigError, match=r"leaves no parameter"):
        freeze(tiny(), ("model", "lm_head"))


def test_what_is_trained_beside_the_adapters_is_trained_whole() -> None:
    model = tiny(tie_word_embeddings=True)
    freeze(model, ("layers.1.",))
    lora = LoRAConfig(
        rank=2, alpha=2, target_modules=("q_proj",), also_train=("k_proj", "layers.0.self_attn.q")
    )
    add_lora(model, lora, ("layers.1.",))
    layer = "model.layers.0.self_attn"
    assert set(trained(model)) == {
        f"{layer}.q_proj.lora_A.default.weight",
        f"{layer}.q_proj.lora_B.default.weight",
        f"{layer}.q_proj.base_layer.weight",
        f"{layer}.q_proj.base_layer.bias",
        f"{layer}.k_proj.weight",
        f"{layer}.k_proj.bias",
    }
    with torch.no_grad():
        model.get_parameter(f"{layer}.q_proj.base_layer.weight").fill_(1.0)
        model.get_parameter(f"{layer}.q_proj.lora_B.default.weight").normal_()
        a, b = (model.get_parameter(f"{layer}.q_proj.lora_{x}.default.weight") for x in "AB")
        merged = {weight.name: weight.tensor() for weight in model_weights(model)}
        torch.testing.assert_close(merged[f"{layer}.q_proj.weight"], 1.0 + b @ a)
        # Factors alone would leave the engines with the base weight that they began with.
        pushed = {weight.name: weight.tensor() for weight in adapter_weights(model)}
        names = {
            f"{layer}.{name}" for name in ("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias")
        }
        assert set(pushed) == names
        torch.testing.assert_close(pushed[f"{layer}.q_proj.weight"], 1.0 + b @ a)

    with pytest.raises(
        ConfigError, match=r"learner\.lora\.also_train: 'layers\.1\.' .*model\.freeze comes first"
    ):
        add_lora(tiny_frozen(), LoRAConfig(rank=2, also_train=("layers.1.",)), ("layers.1.",))


def tiny_frozen() -> Qwen2ForCausalLM:
    model = tiny()
    freeze(model, ("layers.1.",))
    return model


def test_adapters_start_at_zero_and_merge_to_what_they_compute() -> None:
    plain, model = tiny(tie_word_embeddings=True), tiny(tie_word_embeddings=True)
    freeze(model, ("layers.1.",))
    add_lora(model, LoRAConfig(rank=3, alpha=6, target_modules=("q_proj", "down_proj")), ("layers.1.",))
    assert trained(model) == [
        f"model.layers.0.{layer}.lora_{factor}.default.weight"
        for layer in ("self_attn.q_proj", "mlp.down_proj")
        for factor in "AB"
    ]
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, plain(TOKENS).logits, rtol=0, atol=0)
        for name in trained(model):
            model.get_parameter(name).normal_(std=0.1)
        adapted = model(TOKENS).logits
        merged = {weight.name: weight.tensor() for weight in model_weights(model)}
        assert [w.name for w in model_weights(model)] == [w.name for w in model_weights(plain)]
        layer = model.model.layers[0].mlp.down_proj
        product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        expected = plain.get_parameter("model.layers.0.mlp.down_proj.weight") + 6 / 3 * product
        torch.testing.assert_close(merged["model.layers.0.mlp.down_proj.weight"], expected)
        of = {weight.name: weight for weight in model_weights(model)}
        for_engines = of["model.layers.0.mlp.down_proj.weight"].tensor(torch.bfloat16)
        assert torch.equal(for_engines, for_engines.bfloat16().float())
        base = plain.get_parameter("model.layers.0.mlp.down_proj.weight").bfloat16().float()
        torch.testing.assert_close(for_engines - base, 6 / 3 * product, rtol=0.02, atol=2**-7)
        untouched = "model.layers.1.mlp.down_proj.weight"
        assert torch.equal(of[untouched].tensor(torch.bfloat16), merged[untouched])
        plain.load_state_dict(merged, strict=False)
        torch.testing.assert_close(plain(TOKENS).logits, adapted, rtol=1e-5, atol=1e-5)


def test_a_small_adapter_counts_under_autocast() -> None:
    """What it adds is a thousandth of what the layer gives, and bfloat16 keeps eight bits."""
    model = tiny()
    add_lora(model, LoRAConfig(rank=2, alpha=2, target_modules=("q_proj",)), ())
    layer, x = model.model.layers[0].self_attn.q_proj, torch.randn(200, 32)
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_(std=1e-4)
        product = layer.lora_B["default"](layer.lora_A["default"](x))
        assert product.norm() < 1e-3 * layer(x).norm()
        with torch.autocast("cpu", torch.bfloat16):
            added = layer(x).float() - layer.base_layer(x).float()
        torch.testing.assert_close(added, product, rtol=0.02, atol=5e-6)


def test_gradients_of_adapters_under_autocast_are_those_of_float32_but_for_rounding() -> None:
    model = tiny()
    add_lora(model, LoRAConfig(rank=2, alpha=3, target_modules=("q_proj",)), ())
    layer, x = model.model.layers[0].self_attn.q_proj, torch.randn(50, 32, requires_grad=True)
    factors = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    torch.nn.init.normal_(factors[1])
    upstream = torch.randn(50, layer.base_layer.out_features)
    exact = torch.autograd.grad(layer(x), [x, *factors], upstream)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    rounded = torch.autograd.grad(out, [x, *factors], upstream)
    assert out.dtype == torch.float32
    for ours, true in zip(rounded, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - true).norm() < 0.01 * true.norm()


def test_a_target_without_a_layer_names_the_nearest() -> None:
    for target in ("q_projection", "lm_head", "embed_tokens"):
        with pytest.raises(ConfigError, match=rf"learner\.lora\.target_modules: '{target}'.*_proj"):
            add_lora(tiny(), LoRAConfig(rank=2, target_modules=(target,)), ())


def test_dropout_of_adapters_is_the_only_one() -> None:
    model = tiny(attention_dropout=0.5)
    add_lora(model, LoRAConfig(rank=2, dropout=0.5, target_modules=("q_proj",)), ())
    in_training = [name for name, module in model.named_modules() if module.training]
    assert in_training and all("lora_dropout" in name for name in in_training)


def test_activations_are_computed_again_and_gradients_are_the_same() -> None:
    plain, model = tiny(attention_dropout=0.5), tiny(attention_dropout=0.5)
    checkpoint_activations(model)
    calls = []
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda module, inputs: calls.append(module))
    for each in (plain, model):
        each(TOKENS, labels=TOKENS, use_cache=False).loss.backward()
    assert len(calls) == 2 * len(model.model.layers)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain.get_parameter(name).grad, rtol=0, atol=0)
