"""Names the melody of an utterance in one word, from semitones about the speaker's median.

Nothing is interpolated over unvoiced gaps. Direction compares the first with the last quarter. A turning
point is where a quadratic fit has its vertex well inside, deep enough to hear, and explains clearly more
than a line. A melody without either is named by its range: `flat` under 3 semitones, `expressive` over 9,
`uncertain` between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLAT_BELOW_ST, EXPRESSIVE_ABOVE_ST = 3.0, 9.0
MIN_SECONDS, MIN_FRAMES = 0.4, 15
_DIRECTION_ST = 1.5
_VERTEX = (0.2, 0.8)
_DEPTH_ST = 1.0
_NEAR_VERTEX = 0.125
_GAIN_OF_QUADRATIC = 0.15
"""Explained variance that the quadratic must add to the line's."""


@dataclass(frozen=True, slots=True)
class Intonation:
    """Holds the class of a melody and the numbers behind that class."""

    label: str
    """One of rising, falling, rising-falling, falling-rising, flat, expressive, uncertain, too_short."""
    change_st: float | None = None
    """Mean of the last quarter less mean of the first, in semitones."""
    curvature_st: float | None = None
    """Depth of the fitted parabola over the whole utterance, in semitones; positive opens upwards."""
    turning_point: float | None = None
    """Position of the turning point, 0 at the first and 1 at the last voiced frame; None where the melody
    does not turn."""


def classify_intonation(times: np.ndarray, semitones: np.ndarray) -> Intonation:
    """Classifies the melody of the voiced frames; too few frames or too short a time give `too_short`.

    Args:
        times: [V] seconds of the voiced frames, rising.
        semitones: [V] semitones about the speaker's median.
    """
    if len(times) < MIN_FRAMES or times[-1] - times[0] < MIN_SECONDS:
        return Intonation(label="too_short")
    position = (times - times[0]) / (times[-1] - times[0])
    first, last = semitones[position <= 0.25], semitones[position >= 0.75]
    change = float(last.mean() - first.mean())
    line = np.polyval(np.polyfit(position, semitones, 1), position)
    a, b, c = np.polyfit(position, semitones, 2)
    parabola = np.polyval((a, b, c), position)
    vertex = -b / (2 * a) if abs(a) > 1e-9 else np.inf
    variance = max(float(np.var(semitones)), 1e-9)
    gain = (np.var(semitones - line) - np.var(semitones - parabola)) / variance
    inside = bool(_VERTEX[0] <= vertex <= _VERTEX[1])
    turns = inside and gain >= _GAIN_OF_QUADRATIC and _depth(position, semitones, vertex) >= _DEPTH_ST
    low, high = np.percentile(semitones, [5, 95])
    return Intonation(
        label=_label(high - low, change, turns, opens_upwards=a > 0),
        change_st=change,
        curvature_st=float(a / 4),
        turning_point=float(vertex) if turns else None,
    )


def _depth(position: np.ndarray, semitones: np.ndarray, vertex: float) -> float:
    """Returns how far the melody goes or how far it comes back, whichever is less, in semitones.

    A melody that stays level and then rises has a vertex, too, but no depth."""
    near = np.abs(position - vertex) <= _NEAR_VERTEX
    if not near.any():
        return 0.0
    at_vertex = semitones[near].mean()
    before = semitones[position <= 0.25].mean() - at_vertex
    after = semitones[position >= 0.75].mean() - at_vertex
    return float(min(abs(before), abs(after))) if before * after > 0 else 0.0


def _label(range_st: float, change_st: float, turns: bool, *, opens_upwards: bool) -> str:
    if range_st < FLAT_BELOW_ST:
        return "flat"
    if turns:
        return "falling-rising" if opens_upwards else "rising-falling"
    if abs(change_st) >= _DIRECTION_ST:
        return "rising" if change_st > 0 else "falling"
    return "expressive" if range_st > EXPRESSIVE_ABOVE_ST else "uncertain"
