"""Audio Flamingo 3 (arXiv:2507.08128): Whisper's encoder on windows, behind each other, and Qwen2."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel

from rlcore.models.families.base import Family, many_windows, on_tower, processed_apart
from rlcore.models.families.qwen2_audio import RENAMES


def _encode(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    tower = model.model.audio_tower
    features, mask = on_tower(tower, inputs)
    hidden = tower(features, input_features_mask=mask).last_hidden_state  # [A, N, D]
    _, lengths = tower._get_feat_extract_output_lengths(mask.sum(-1))
    return [h[:n] for h, n in zip(hidden, lengths.tolist(), strict=True)]


AUDIO_FLAMINGO3 = Family(
    name="Audio Flamingo 3",
    architectures=("AudioFlamingo3ForConditionalGeneration",),
    model_class="AudioFlamingo3ForConditionalGeneration",
    decoder="model.language_model",
    renames=RENAMES,
    language_prefixes=("language_model.",),
    audio_tower="model.audio_tower",
    projector="model.multi_modal_projector",
    process_audio=processed_apart,
    heard_seconds=many_windows,
    encode_audio=_encode,
    takes_audio_embeds=True,
    max_recordings=1,
)
