"""Tells which claim a level word makes of the carrier that it is said of."""

from __future__ import annotations

import re

from emotion_task.claims.lexicon import (
    BEARER,
    CONTOUR,
    ENERGY,
    FREE,
    LEVELS,
    PITCH,
    SPEECH,
    SPEED,
    TOPIC,
    VARIATION,
    VOICE,
    words,
)

FOREIGN = "foreign"
"""Carrier that stands for a noun that is not of the voice."""

_OPPOSITE = {
    a: b
    for pair in (("low", "high"), ("slow", "fast"), ("flat", "expressive"))
    for a, b in (pair, reversed(pair))
}
_CHANGE = words("unvarying unvaried varied fluctuating")
"""Words of change, which say of a loudness or a tempo nothing about the melody."""


def value_of(carrier: str, word: str) -> tuple[str, str] | None:
    """Returns the claim that `word`, said of `carrier`, makes; None where it makes no claim."""
    if carrier == FOREIGN:
        return None
    if carrier in (VOICE, SPEECH):
        name = LEVELS[carrier].get(word) or FREE.get(word)
    elif carrier in (BEARER, TOPIC):
        name = FREE.get(word)
    elif carrier == PITCH and word not in LEVELS[PITCH] and word in LEVELS[CONTOUR]:
        name = CONTOUR
    else:
        name = carrier if word in LEVELS.get(carrier, {}) else FREE.get(word)
    if name is None or (carrier in (ENERGY, SPEED) and word in _CHANGE):
        return None
    if name == VARIATION:
        return CONTOUR, LEVELS[VARIATION][word]
    value = LEVELS[name].get(word)
    return None if value is None else (name, value)


def reverse(claim: tuple[str, str]) -> tuple[str, str] | None:
    """Returns what "less" makes of a level; less normal is no level."""
    value = _OPPOSITE.get(claim[1])
    return None if value is None else (claim[0], value)


def alone(word: str) -> list[str]:
    return [TOPIC] if word in FREE else []


_NO_PITCH = re.compile(
    r"\b(?:no|without) (?:any |a |real |clear |audible |discernible |measurable |detectable |stable )*"
    r"(?:pitch|f0)\b(?! (?:change|movement|jump|rise|fall|accent|level)| ?\w*ing)"
    r"|\b(?:pitch|f0) (?:is|was|can|could) "
    r"(?:absent|missing|not (?:be )?(?:heard|detected|measured|present|perceived|found|there|audible))\b"
)


def denies_pitch(tokens: tuple[str, ...]) -> bool:
    """Returns whether a sentence denies a pitch: no discernible pitch; the pitch can not be heard."""
    return bool(_NO_PITCH.search(" ".join(tokens)))
