"""GLM-ASR: a rotary Whisper encoder on windows, four of its frames to one embedding, and Llama."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel

from rlcore.models.families.base import Family, many_windows, on_tower, processed_apart
from rlcore.models.families.qwen2_audio import RENAMES

_MERGED = 4
"""Frames of the tower that become one embedding."""


def _encode(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    tower = model.model.audio_tower
    features, mask = on_tower(tower, inputs)
    hidden = tower(features).last_hidden_state  # [A, 4 N, D / 4]
    hidden = hidden.reshape(len(hidden), -1, model.config.audio_config.intermediate_size)
    lengths = ((mask.sum(-1) - 1) // 2 + 1) // _MERGED  # of two convolutions the second halves
    return [h[:n] for h, n in zip(hidden, lengths.tolist(), strict=True)]


GLM_ASR = Family(
    name="GLM-ASR",
    architectures=("GlmAsrForConditionalGeneration",),
    model_class="GlmAsrForConditionalGeneration",
    decoder="model.language_model",
    renames=RENAMES,
    language_prefixes=("language_model.",),
    audio_tower="model.audio_tower",
    projector="model.multi_modal_projector",
    process_audio=processed_apart,
    heard_seconds=many_windows,
    encode_audio=_encode,
    takes_audio_embeds=True,
)
