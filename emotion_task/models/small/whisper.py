"""Whisper's encoder as Qwen2-Audio's audio tower: the same layers under other names.

Qwen2-Audio halves the time resolution before the final norm, and trains for it; Whisper's tower is used as
it is. A tower of fewer layers ends where Whisper has no final norm: it gets one that only normalises.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from emotion_task.models.small.ctranslate2 import ModelFile
from rlcore.errors import DataError

NUM_LAYERS = 6
WIDTH = 512
NUM_HEADS = 8
NUM_MEL_BINS = 80

_NORMS = {
    "self_attn_layer_norm": "self_attention/layer_norm",
    "final_layer_norm": "ffn/layer_norm",
}
_LINEAR = {"self_attn.out_proj": "self_attention/linear_1", "fc1": "ffn/linear_0", "fc2": "ffn/linear_1"}


def audio_tower(model: ModelFile, *, num_layers: int, num_positions: int) -> dict[str, Tensor]:
    """Returns the state of a `Qwen2AudioEncoder` from Whisper base, float32.

    Args:
        num_layers: how many of the encoder's layers, from the first.
        num_positions: rows of the position table [num_positions, 512]: 50 a second.

    Raises:
        DataError: the file is not Whisper base.
    """
    if model.specification != "WhisperSpec":
        raise DataError(f"expected is CTranslate2's WhisperSpec, the model file is a {model.specification}")
    source = _Source(model.tensors)
    state = {"embed_positions.weight": source.tensor("position_encodings/encodings")[:num_positions].clone()}
    for conv in ("conv1", "conv2"):
        state |= {f"{conv}.{kind}": source.tensor(f"{conv}/{kind}") for kind in ("weight", "bias")}
    for layer in range(num_layers):
        state |= {f"layers.{layer}.{name}": t for name, t in _layer(source, f"layer_{layer}").items()}
    if num_layers == NUM_LAYERS:
        return state | _norm(source, "layer_norm", "layer_norm")
    bias = state["conv2.bias"]
    return state | {"layer_norm.weight": torch.ones_like(bias), "layer_norm.bias": torch.zeros_like(bias)}


def _layer(source: _Source, place: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, there in _LINEAR.items():
        state |= {f"{name}.{kind}": source.tensor(f"{place}/{there}/{kind}") for kind in ("weight", "bias")}
    for name, there in _NORMS.items():
        state |= _norm(source, name, f"{place}/{there}")
    # CTranslate2 fuses the three; Whisper's keys have no bias, which it writes as zeros.
    for kind in ("weight", "bias"):
        fused = source.tensor(f"{place}/self_attention/linear_0/{kind}").chunk(3)
        state |= {f"self_attn.{n}_proj.{kind}": t.clone() for n, t in zip("qkv", fused, strict=True)}
    del state["self_attn.k_proj.bias"]
    return state


def _norm(source: _Source, name: str, there: str) -> dict[str, Tensor]:
    return {
        f"{name}.weight": source.tensor(f"{there}/gamma"),
        f"{name}.bias": source.tensor(f"{there}/beta"),
    }


class _Source:
    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self._tensors = tensors

    def tensor(self, name: str) -> Tensor:
        """Returns a float32 copy of one of the encoder's tensors."""
        if f"encoder/{name}" not in self._tensors:
            raise DataError(f"the model file has no tensor encoder/{name}: it is not Whisper base")
        return torch.from_numpy(self._tensors[f"encoder/{name}"].astype(np.float32))
