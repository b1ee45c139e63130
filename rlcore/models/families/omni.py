"""The thinkers of Qwen2.5-Omni (arXiv:2503.20215) and Qwen3-Omni (arXiv:2509.17765), whose talkers are left
out. Their audio towers take recordings of any length, without a window.

Qwen3-Omni's vision tower adds to the decoder's layers too, which no embedding carries: it takes no pictures
here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import transformers
from torch import Tensor
from transformers import FeatureExtractionMixin, PretrainedConfig, PreTrainedModel, ProcessorMixin

from rlcore.models.families.base import (
    FEATURES,
    Family,
    Features,
    Media,
    in_one_row,
    on_tower,
    processed_at_once,
)
from rlcore.models.families.qwen_vision import qwen_vision


def _process(processor: ProcessorMixin, placeholder: str, media: Media) -> tuple[Features, tuple[int, ...]]:
    """Computes features without padding behind the longest recording. The processor alone makes 30,000
    frames, five minutes, of every recording, which takes 40 times as long."""
    window = _window(processor.feature_extractor, media["audio"])
    features, lengths = processed_at_once(processor, placeholder, media, **window)
    longest = int(features["feature_attention_mask"].sum(-1).max())
    return {name: np.ascontiguousarray(features[name][..., :longest]) for name in FEATURES}, lengths


def _window(extractor: FeatureExtractionMixin, waveforms: Sequence[np.ndarray]) -> dict[str, int]:
    """Returns the argument by which a feature extractor pads to no more than it has to.

    The frames of the recordings stay the same, bit for bit: the window ends behind the last frame that hears
    a recording, and on a whole second, as the processor's own does.
    """
    samples = max(len(waveform) for waveform in waveforms) + extractor.n_fft
    rate = extractor.sampling_rate
    return {"max_length": min(-(-samples // rate) * rate, extractor.n_samples)}


def _encode_qwen2_5(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    features, mask = on_tower(model.audio_tower, inputs)
    flat = model.get_audio_features(features, mask, return_dict=True).last_hidden_state  # [sum N_i, H]
    _, lengths = model.audio_tower._get_feat_extract_output_lengths(mask.sum(-1))
    return list(flat.split(lengths.tolist()))


def _encode_qwen3(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import _get_feat_extract_output_lengths

    features, mask = on_tower(model.audio_tower, inputs)
    flat = model.get_audio_features(features, mask, return_dict=True).last_hidden_state  # [sum N_i, H]
    lengths = _get_feat_extract_output_lengths(mask.sum(-1), model.audio_tower.n_window)
    return list(flat.split(lengths.tolist()))


def _qwen2_5_checkpoint_config(model: PreTrainedModel) -> PretrainedConfig:
    """Returns the thinker inside the whole model's config, as vLLM and the hub expect it; the talker is left
    out."""
    config = transformers.Qwen2_5OmniConfig(thinker_config=model.config.to_dict(), enable_audio_output=False)
    config.architectures = ["Qwen2_5OmniModel"]
    return config


def _qwen3_checkpoint_config(model: PreTrainedModel) -> PretrainedConfig:
    config = transformers.Qwen3OmniMoeConfig(thinker_config=model.config.to_dict(), enable_audio_output=False)
    config.architectures = ["Qwen3OmniMoeForConditionalGeneration"]
    return config


QWEN2_5_OMNI = Family(
    name="Qwen2.5-Omni",
    architectures=(
        "Qwen2_5OmniModel",
        "Qwen2_5OmniForConditionalGeneration",
        "Qwen2_5OmniThinkerForConditionalGeneration",
    ),
    model_class="Qwen2_5OmniThinkerForConditionalGeneration",
    decoder="model",
    renames=((r"^", "thinker."),),
    language_prefixes=("thinker.model.", "thinker.lm_head."),
    checkpoint_config=_qwen2_5_checkpoint_config,
    audio_tower="audio_tower",
    process_audio=_process,
    encode_audio=_encode_qwen2_5,
    engine_features=in_one_row,
    vision=qwen_vision("visual", seconds="position_id_per_seconds"),
)

QWEN3_OMNI = replace(
    QWEN2_5_OMNI,
    name="Qwen3-Omni",
    architectures=("Qwen3OmniMoeForConditionalGeneration", "Qwen3OmniMoeThinkerForConditionalGeneration"),
    model_class="Qwen3OmniMoeThinkerForConditionalGeneration",
    checkpoint_config=_qwen3_checkpoint_config,
    encode_audio=_encode_qwen3,
    whole_hops=True,
    vision=None,
    other_media=("visual",),
)
