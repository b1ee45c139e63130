"""The checkable facts of an utterance: what a trace may state and what a claim is compared with.

A fact is a measured field whose value a listener could name. Nothing is guessed: a field that is null, or a
contour that could not be named (`uncertain`, `too_short`), is no fact. One value is added to the manifest's:
`pitch_level` is `none` where the measurement says that the voice has no pitch (whispered speech).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emotion_task.records import Utterance

VALUES: dict[str, tuple[str, ...]] = {
    "pitch_level": ("low", "normal", "high", "none"),
    "energy_level": ("low", "normal", "high"),
    "speed_level": ("slow", "normal", "fast"),
    "intonation": ("rising", "falling", "rising-falling", "falling-rising", "flat", "expressive"),
    "gender": ("male", "female"),
}
"""Values that can be stated, by attribute."""

PROSODY = ("pitch_level", "energy_level", "speed_level", "intonation")
"""Attributes over which prosody accuracy is the mean."""


_WHISPERED_BELOW = 0.2
"""Voiced share of the speech frames; modal speech has 0.5 to 0.9."""
_HEARD_FROM_DB = 12.0
"""Signal to noise from which noise does not hide a voice."""


def stated_facts(utterance: Utterance) -> dict[str, str]:
    """Returns the value of each attribute of `VALUES` that is known of this utterance."""
    facts = {}
    for name, values in VALUES.items():
        value = getattr(utterance, name)
        if value in values:
            facts[name] = value
    if "pitch_level" not in facts and has_no_pitch(utterance.measured):
        facts["pitch_level"] = "none"
    return facts


def known_facts(utterance: Utterance) -> dict[str, str]:
    """Returns `stated_facts`, and the speaker's age group where the manifest has it.

    Age stands apart because few corpora tell it: what every recording is asked about, and the judge's row of
    digits, hold no age.
    """
    age = utterance.age_level
    return stated_facts(utterance) | ({} if age is None else {"age_level": age})


def has_no_pitch(measured: Mapping[str, Any] | None) -> bool:
    """Tells that next to none of the measured speech is voiced, as in whispering.

    A track that is unreliable for another reason (too short, drowned in noise, which hides the level too) is
    unknown, not pitchless.
    """
    if measured is None or measured.get("f0_reliable") is not False or not measured.get("level_reliable"):
        return False
    voiced, snr = measured.get("voiced_fraction"), measured.get("snr_db")
    if isinstance(snr, int | float) and snr < _HEARD_FROM_DB:
        return False
    return isinstance(voiced, int | float) and voiced < _WHISPERED_BELOW


def reference_of(utterance: Utterance) -> dict[str, object]:
    """Returns what rewards and metrics compare with: the emotion, the transcript, and the measured facts."""
    return {
        "emotion": utterance.emotion,
        "text": utterance.text,
        "speaker": utterance.speaker,
        "dataset": utterance.dataset,
        "stressed_words": utterance.stressed_words,
        "age_level": None,
        **known_facts(utterance),
    }
