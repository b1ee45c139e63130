"""The facts that rlcore must know of each architecture, in one place.

A model family says which transformers class holds the policy, how its in-memory parameter names map to the
names on the hub (which are also vLLM's), where its audio tower and its text decoder are, and how audio
becomes embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask

from rlcore.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Family:
    """Facts of an architecture that rlcore needs, and that transformers does not say uniformly."""

    model_class: str
    """Name of the transformers class that holds the policy."""
    decoder: str
    """Attribute path of the text decoder, which takes `inputs_embeds` and gives hidden states."""
    renames: tuple[tuple[str, str], ...] = ()
    """Pairs (pattern, replacement) that turn in-memory parameter names into the hub's; the first match
    wins."""
    media_modules: tuple[str, ...] = ()
    """Attribute paths of encoders and projectors, everything that is not the language model."""
    language_prefixes: tuple[str, ...] = ("",)
    """Prefixes of the language model's hub names, all of which a weight push must cover."""
    encode_audio: Callable[[PreTrainedModel, Mapping[str, Tensor]], list[Tensor]] | None = None
    """Function of the processor's tensors that gives the tower's output, one `[N_i, D]` per audio."""
    projector: str | None = None
    """Attribute path of the module that takes D to the decoder's H; None: the tower gives H itself."""
    skips_padding: bool = False
    """True where the tower leaves out the frames that `feature_attention_mask` does not mark."""
    whole_hops: bool = False
    """True where vLLM's processor and transformers' differ in the frames of a recording that is no whole
    number of the feature extractor's hops long."""
    takes_audio_features: bool = False
    """True where vLLM's implementation accepts the processor's tensors of audio (`model.media: raw`)."""
    takes_audio_embeds: bool = False
    """True where vLLM's implementation accepts audio as embeddings (`model.media: embeds`)."""
    checkpoint_config: Callable[[PreTrainedModel], PretrainedConfig] = lambda model: model.config
    """Function that gives the config to write beside the weights; the default is the model's own."""


def _encode_qwen2_audio(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    tower = model.model.audio_tower
    features = inputs["input_features"].to(device=tower.device, dtype=tower.dtype)  # [A, M, F]
    mel_lengths = inputs["feature_attention_mask"].to(tower.device).sum(-1)
    conv_lengths, lengths = tower._get_feat_extract_output_lengths(mel_lengths)  # [A], [A]
    num_frames = (features.shape[-1] - 2) // 2 + 1
    visible = torch.arange(num_frames, device=tower.device)[None, :] < conv_lengths[:, None]
    mask = create_bidirectional_mask(
        config=tower.config,
        inputs_embeds=features.new_zeros(len(features), num_frames, 1),
        attention_mask=visible.long(),
    )
    hidden = tower(features, attention_mask=mask).last_hidden_state  # [A, N, D]
    return [h[:n] for h, n in zip(hidden, lengths.tolist(), strict=True)]


def _encode_qwen2_5_omni(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    tower = model.audio_tower
    mask = inputs["feature_attention_mask"].to(tower.device)
    features = inputs["input_features"].to(device=tower.device, dtype=tower.dtype)
    flat = model.get_audio_features(features, mask, return_dict=True).last_hidden_state  # [sum N_i, H]
    _, lengths = tower._get_feat_extract_output_lengths(mask.sum(-1))
    return list(flat.split(lengths.tolist()))


def _encode_qwen3_omni(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import _get_feat_extract_output_lengths

    tower = model.audio_tower
    mask = inputs["feature_attention_mask"].to(tower.device)
    features = inputs["input_features"].to(device=tower.device, dtype=tower.dtype)
    flat = model.get_audio_features(features, mask, return_dict=True).last_hidden_state  # [sum N_i, H]
    lengths = _get_feat_extract_output_lengths(mask.sum(-1), tower.n_window)
    return list(flat.split(lengths.tolist()))


def _omni_checkpoint_config(model: PreTrainedModel) -> PretrainedConfig:
    """Returns the thinker inside the whole model's config, as vLLM and the hub expect it; the talker is left
    out."""
    config = transformers.Qwen2_5OmniConfig(thinker_config=model.config.to_dict(), enable_audio_output=False)
    config.architectures = ["Qwen2_5OmniModel"]
    return config


def _qwen3_omni_checkpoint_config(model: PreTrainedModel) -> PretrainedConfig:
    config = transformers.Qwen3OmniMoeConfig(thinker_config=model.config.to_dict(), enable_audio_output=False)
    config.architectures = ["Qwen3OmniMoeForConditionalGeneration"]
    return config


QWEN2_AUDIO = Family(
    model_class="Qwen2AudioForConditionalGeneration",
    decoder="model.language_model",
    renames=(
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.(audio_tower|multi_modal_projector)\.", r"\1."),
    ),
    media_modules=("model.audio_tower", "model.multi_modal_projector"),
    language_prefixes=("language_model.",),
    encode_audio=_encode_qwen2_audio,
    projector="model.multi_modal_projector",
    takes_audio_embeds=True,
)

QWEN2_5_OMNI = Family(
    model_class="Qwen2_5OmniThinkerForConditionalGeneration",
    decoder="model",
    renames=((r"^", "thinker."),),
    media_modules=("audio_tower", "visual"),
    language_prefixes=("thinker.model.", "thinker.lm_head."),
    encode_audio=_encode_qwen2_5_omni,
    skips_padding=True,
    takes_audio_features=True,
    checkpoint_config=_omni_checkpoint_config,
)

QWEN3_OMNI = replace(
    QWEN2_5_OMNI,
    model_class="Qwen3OmniMoeThinkerForConditionalGeneration",
    encode_audio=_encode_qwen3_omni,
    whole_hops=True,
    checkpoint_config=_qwen3_omni_checkpoint_config,
)

CAUSAL_LM = Family(model_class="AutoModelForCausalLM", decoder="model")

FAMILIES: dict[str, Family] = {
    "Qwen2AudioForConditionalGeneration": QWEN2_AUDIO,
    "Qwen2_5OmniModel": QWEN2_5_OMNI,
    "Qwen2_5OmniForConditionalGeneration": QWEN2_5_OMNI,
    "Qwen2_5OmniThinkerForConditionalGeneration": QWEN2_5_OMNI,
    "Qwen3OmniMoeForConditionalGeneration": QWEN3_OMNI,
    "Qwen3OmniMoeThinkerForConditionalGeneration": QWEN3_OMNI,
}
"""Families by `config.architectures[0]`. Every other architecture that transformers loads as a causal
language model is `CAUSAL_LM`."""


def policy_config(config: PretrainedConfig) -> PretrainedConfig:
    """Returns the part of a checkpoint's config that describes the policy: an omni model's thinker, else
    all."""
    own: PretrainedConfig = getattr(config, "thinker_config", config)
    return own


def family_of(source: PretrainedConfig | PreTrainedModel) -> Family:
    """Returns the family of a checkpoint's config, or of a loaded model.

    Raises:
        ConfigError: the architecture is neither a known speech model nor a causal language model.
    """
    if isinstance(source, PretrainedConfig):
        architecture = (source.architectures or [""])[0]
    else:
        architecture = type(source).__name__
    if architecture in FAMILIES:
        return FAMILIES[architecture]
    if architecture.endswith("ForCausalLM"):
        return CAUSAL_LM
    raise ConfigError(
        f"model.path: architecture {architecture or '(none)'!r} is not supported; "
        f"supported are {sorted(FAMILIES)} and any *ForCausalLM"
    )
