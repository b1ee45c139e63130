"""The page of model families: which there are, and what each can do.

Everything is read from rlcore.models.families. What the page says of a family is what
tests/integration/test_families.py and its neighbours try.
"""

from __future__ import annotations

from generate.table import table

from rlcore.models.families import OWN_FAMILIES, Family
from rlcore.models.families.left_out import LEFT_OUT


def row(family: Family) -> list[str]:
    """Returns the cells of a family."""
    names = "<br>".join(f"`{name}`" for name in family.architectures)
    if not family.media_modules:
        return [family.name, "any other that is a text model", "", "", "", "", "checked at the start", "yes"]
    audio = ["", "", "none"]
    if family.audio_tower is not None:
        audio = [
            "yes" if family.takes_audio_embeds else "no",
            "features" if family.engine_features else "waveforms",
            str(family.max_recordings or "any number"),
        ]
    pictures = "yes" if family.vision is not None else "no"
    return [family.name, names, *audio, pictures, "yes", "yes"]


def page() -> str:
    """Returns the page."""
    heads = [
        "family",
        "`architectures` in config.json",
        "vLLM: `model.media: embeds`",
        "vLLM: `model.media: raw`",
        "recordings in a prompt",
        "images and videos",
        "learner: packed rows",
        "LoRA",
    ]
    left = [[name, f"`{architecture}`", reason] for architecture, (name, reason) in LEFT_OUT.items()]
    return "\n".join(
        [
            "# Model families",
            "",
            "Written by `make pages` from `rlcore.models.families`; do not edit.",
            "",
            *table(heads, map(row, OWN_FAMILIES)),
            "`embeds`: the frozen audio tower runs once a prompt, and vLLM takes its output. `raw`: vLLM "
            "runs the tower too, which may then be trained (`model.freeze`), on the learner's features or "
            "on the waveforms. Where vLLM gets waveforms, the feature extractor's window must be the one "
            "that vLLM knows, 30 seconds. Of images and the frames of videos, with either setting, the "
            "vision tower's output is made once a prompt, and is what vLLM, learner and reference take; the"
            " tower is never trained. Packed rows hold a prompt once for all of its completions, with its "
            "media. Of each family vLLM and the learner agree to 1e-4 in log-probabilities in float32, "
            "before and after a push, with adapters, and after an export; they are tried with tiny "
            "checkpoints of the real architecture.",
            "",
            "[A family of your own](../guides/families.md) is one file.",
            "",
            "## Refused by name",
            "",
            "Other models that hear or see are refused as the run starts, never taken for text models.",
            "",
            *table(["model", "architecture", "why"], left),
        ]
    )
