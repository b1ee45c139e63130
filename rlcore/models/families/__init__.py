"""The model families: each in a file of its own, found by the architecture that a `config.json` names.

An installed package adds a family by an entry point of the group `rlcore.families`, whose object is a
`Family`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from rlcore.errors import ConfigError
from rlcore.models.families.audio_flamingo3 import AUDIO_FLAMINGO3
from rlcore.models.families.base import Family as Family
from rlcore.models.families.base import Media as Media
from rlcore.models.families.glm_asr import GLM_ASR
from rlcore.models.families.left_out import LEFT_OUT
from rlcore.models.families.omni import QWEN2_5_OMNI, QWEN3_OMNI
from rlcore.models.families.qwen2_audio import QWEN2_AUDIO
from rlcore.models.families.qwen3_asr import QWEN3_ASR
from rlcore.models.families.qwen_vl import QWEN2_5_VL
from rlcore.models.families.text import CAUSAL_LM

ENTRY_POINTS = "rlcore.families"
"""The group in which an installed package names its families."""

OWN_FAMILIES = (
    QWEN2_AUDIO,
    QWEN2_5_OMNI,
    QWEN3_OMNI,
    AUDIO_FLAMINGO3,
    GLM_ASR,
    QWEN3_ASR,
    QWEN2_5_VL,
    CAUSAL_LM,
)

_MEDIA_KEY = re.compile(r"(^|_)(audio|speech|sound|whisper|kimia|vision|visual|image|img|video)(_|$)")
"""Keys of a `config.json` that only a model has which hears or sees."""
_MEDIA_NAME = re.compile(
    r"Audio|Speech|Voice|Sound|A[Ss][Rr](?=[A-Z\d]|$)|Kimia|Omni|Vision|MiniCPMO|(VL|MM)(?=[A-Z\d_]|$)|LMV$"
)
"""Names of architectures that hear or see, such as Phi4MMForCausalLM and MoonshotKimiaForCausalLM."""


@cache
def families() -> dict[str, Family]:
    """Returns rlcore's families and those of installed packages, by architecture.

    Raises:
        ConfigError: an entry point does not import, is no `Family`, or names an architecture that has one.
    """
    found = {architecture: family for family in OWN_FAMILIES for architecture in family.architectures}
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        where = f"entry point {entry.name} = {entry.value} of the group {ENTRY_POINTS}"
        try:
            family = entry.load()
        except Exception as error:  # the boundary to another package's code
            raise ConfigError(f"{where}: it does not load ({type(error).__name__}: {error})") from error
        if not isinstance(family, Family):
            raise ConfigError(f"{where}: a {type(family).__name__} is no rlcore.models.families.Family")
        if taken := sorted(found.keys() & set(family.architectures)):
            raise ConfigError(f"{where}: {taken[0]} has a family already, {found[taken[0]].name}")
        found |= {architecture: family for architecture in family.architectures}
    return found


def policy_config(config: PretrainedConfig) -> PretrainedConfig:
    """Returns the part of a checkpoint's config that describes the policy: an omni model's thinker, else
    all."""
    own: PretrainedConfig = getattr(config, "thinker_config", config)
    return own


def family_of(source: PretrainedConfig | PreTrainedModel) -> Family:
    """Returns the family of a checkpoint's config, or of a loaded model.

    Raises:
        ConfigError: the architecture is neither a known family's nor that of a text model, or its checkpoint
            has a form that transformers does not read.
    """
    is_config = isinstance(source, PretrainedConfig)
    architecture = (source.architectures or [""])[0] if is_config else type(source).__name__
    if isinstance(getattr(source, "thinker_config", None), dict):
        raise ConfigError(
            f"model.path: {architecture} in a form that transformers does not read (thinker_config); take "
            "the checkpoint in transformers' own form, whose name ends in -hf"
        )
    if architecture in families():
        return families()[architecture]
    keys = source.to_dict() if is_config else {}
    if architecture.endswith("ForCausalLM") and not _media_in(architecture, keys):
        return CAUSAL_LM
    raise ConfigError(f"model.path: {not_supported({**keys, 'architectures': [architecture]})}")


def not_supported(config: Mapping[str, Any]) -> str:
    """Returns a sentence that names what a `config.json` of no family holds, and what is supported."""
    architecture = (config.get("architectures") or [""])[0]
    found, why = _media_in(architecture, config), ""
    if architecture in LEFT_OUT:
        name, reason = LEFT_OUT[architecture]
        why = f" ({name}: {reason})"
    elif found:
        what = "by its name" if found == architecture else f"{found} in its config.json"
        why = f" (it hears or sees, {what}, and is no text model)"
    names = [family.name for family in dict.fromkeys([*families().values(), CAUSAL_LM])]
    return (
        f"architecture {architecture or config.get('model_type') or '(none)'!r}{why} is not supported; "
        f"supported are {', '.join(names)}. Another is one file: docs/guides/families.md"
    )


def _media_in(architecture: str, config: Mapping[str, Any]) -> str:
    """Returns the key, or else the architecture, that shows a model to hear or see; empty for text models."""
    keys = [key for key, value in config.items() if value and _MEDIA_KEY.search(key)]
    return keys[0] if keys else architecture if _MEDIA_NAME.search(architecture) else ""
