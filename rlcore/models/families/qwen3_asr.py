"""Qwen3-ASR (checkpoints in transformers' own form, `*-hf`): Qwen3-Omni's audio tower and a dense Qwen3."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel

from rlcore.models.families.base import Family, in_one_row, on_tower, processed_apart


def _encode(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    from transformers.models.qwen3_asr.modeling_qwen3_asr import _get_feat_extract_output_lengths

    tower = model.model.audio_tower
    features, mask = on_tower(tower, inputs)
    flat = tower(input_features=features, input_features_mask=mask).last_hidden_state  # [sum N_i, D]
    lengths = _get_feat_extract_output_lengths(mask.sum(-1), tower.n_window)
    return list(flat.split(lengths.tolist()))


QWEN3_ASR = Family(
    name="Qwen3-ASR",
    architectures=("Qwen3ASRForConditionalGeneration",),
    model_class="Qwen3ASRForConditionalGeneration",
    decoder="model.language_model",
    language_prefixes=("model.language_model.", "lm_head."),
    audio_tower="model.audio_tower",
    projector="model.multi_modal_projector",
    process_audio=processed_apart,
    heard_seconds=lambda _: None,
    encode_audio=_encode,
    engine_features=in_one_row,
)
