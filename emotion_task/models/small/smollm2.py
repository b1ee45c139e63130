"""SmolLM2 from a GGUF file as a Qwen2 language model: Llama is Qwen2 whose attention biases are zero."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlcore.errors import DataError, MissingDependencyError

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedTokenizerFast

_CONTROL = 3
"""GGUF's type of special tokens."""
_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """A language model as its GGUF file holds it."""

    config: dict[str, Any]
    """Keywords of `Qwen2Config`, without the vocabulary's size and token ids."""
    state: dict[str, Tensor]
    """State of a `Qwen2Model`, float32. The head is tied to `embed_tokens.weight`."""
    tokens: list[str]
    """Token of each id, in the byte-level alphabet."""
    merges: list[tuple[str, str]]
    special_tokens: list[str]


def read_language_model(path: Path) -> LanguageModel:
    """Reads and de-quantises a Llama model with a byte-level BPE tokenizer.

    Raises:
        MissingDependencyError: the extra `small` is not installed.
        DataError: another architecture or tokenizer.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingDependencyError(
            "reading SmolLM2's weights needs the package gguf: `.venv/bin/pip install -e '.[small]'`"
        ) from error
    reader = GGUFReader(path)

    def field(name: str) -> Any:
        if name not in reader.fields:
            raise DataError(f"{path}: the field {name} is missing: not a Llama model with its tokenizer")
        return reader.fields[name].contents()

    kind = field("general.architecture"), field("tokenizer.ggml.model"), field("tokenizer.ggml.pre")
    if kind != ("llama", "gpt2", "smollm"):
        raise DataError(f"{path}: expected is ('llama', 'gpt2', 'smollm'), it holds {kind}")
    config = {
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": field("llama.attention.head_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        "max_position_embeddings": field("llama.context_length"),
        "rms_norm_eps": field("llama.attention.layer_norm_rms_epsilon"),
        "rope_parameters": {"rope_type": "default", "rope_theta": field("llama.rope.freq_base")},
    }
    tokens = field("tokenizer.ggml.tokens")
    types = field("tokenizer.ggml.token_type")
    return LanguageModel(
        config=config,
        state=_state(reader, config),
        tokens=tokens,
        merges=[tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")],
        special_tokens=[token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL],
    )


def _state(reader: GGUFReader, config: dict[str, Any]) -> dict[str, Tensor]:
    from gguf import dequantize

    stored = {tensor.name: tensor for tensor in reader.tensors}

    def read(name: str) -> Tensor:
        return torch.from_numpy(dequantize(stored[name].data, stored[name].tensor_type).copy())

    state = {"embed_tokens.weight": read("token_embd.weight"), "norm.weight": read("output_norm.weight")}
    for layer in range(config["num_hidden_layers"]):
        here, there = f"layers.{layer}", f"blk.{layer}"
        state |= {f"{here}.{name}": read(f"{there}.{source}") for source, name in _LAYER.items()}
        for name, heads in (("q", "num_attention_heads"), ("k", "num_key_value_heads")):
            weight = read(f"{there}.attn_{name}.weight")
            state[f"{here}.self_attn.{name}_proj.weight"] = _halves(weight, config[heads])
        for name in "qkv":
            width = len(state[f"{here}.self_attn.{name}_proj.weight"])
            state[f"{here}.self_attn.{name}_proj.bias"] = torch.zeros(width)
    return state


def _halves(weight: Tensor, num_heads: int) -> Tensor:
    """GGUF interleaves the two halves of a head's rotary dimensions; transformers and vLLM keep them apart.

    [num_heads * D, H] in and out."""
    pairs = weight.reshape(num_heads, -1, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape).contiguous()


def build_tokenizer(model: LanguageModel, **named: object) -> PreTrainedTokenizerFast:
    """Builds SmolLM2's tokenizer: byte-level BPE, digits one by one."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(model.tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=model.merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in model.special_tokens]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>", **named
    )
