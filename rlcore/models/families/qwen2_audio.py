"""Qwen2-Audio (arXiv:2407.10759): Whisper's encoder, one linear projector, Qwen2."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask

from rlcore.models.families.base import Family, on_tower, processed_at_once

RENAMES = (
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.(audio_tower|multi_modal_projector)\.", r"\1."),
)
"""Names on the hub of what transformers 5 holds as a tower, a projector and a decoder below `model`."""


def _encode(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    tower = model.model.audio_tower
    features, feature_mask = on_tower(tower, inputs)  # [A, M, F], [A, F]
    conv_lengths, lengths = tower._get_feat_extract_output_lengths(feature_mask.sum(-1))  # [A], [A]
    num_frames = (features.shape[-1] - 2) // 2 + 1
    visible = torch.arange(num_frames, device=tower.device)[None, :] < conv_lengths[:, None]
    mask = create_bidirectional_mask(
        config=tower.config,
        inputs_embeds=features.new_zeros(len(features), num_frames, 1),
        attention_mask=visible.long(),
    )
    hidden = tower(features, attention_mask=mask).last_hidden_state  # [A, N, D]
    return [h[:n] for h, n in zip(hidden, lengths.tolist(), strict=True)]


QWEN2_AUDIO = Family(
    name="Qwen2-Audio",
    architectures=("Qwen2AudioForConditionalGeneration",),
    model_class="Qwen2AudioForConditionalGeneration",
    decoder="model.language_model",
    renames=RENAMES,
    language_prefixes=("language_model.",),
    audio_tower="model.audio_tower",
    projector="model.multi_modal_projector",
    process_audio=processed_at_once,
    encode_audio=_encode,
    takes_audio_embeds=True,
)
