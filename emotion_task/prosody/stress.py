"""Finds the word that stands out, from word times, pitch and level.

A stressed word is higher than the melody around it, louder and longer. Each cue is standardised over the
words of the utterance and weighed; the phrase melody (a parabola) is taken off the pitch first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emotion_task.prosody.activity import FRAME_S, Activity
from emotion_task.prosody.align import Word
from emotion_task.prosody.f0 import F0Track

MIN_MARGIN = 0.25
"""Least lead of the stressed word over the next one, in standard deviations of the weighed cues; with less,
there is no stressed word."""
_PITCH, _LEVEL, _DURATION = 1.0, 0.6, 0.3
_MIN_VOICED_FRAMES = 8
_PEAK = 80
"""Percentile of a word's pitch residuals that counts as its peak, without the tracker's stray frames."""


@dataclass(frozen=True, slots=True)
class Stress:
    """Names the most prominent word."""

    index: int
    """Index of the word among the words given."""
    margin: float
    """Lead of the word's score over the next word's; see `MIN_MARGIN`."""


def find_stress(words: Sequence[Word], track: F0Track, activity: Activity) -> Stress | None:
    """Returns the most prominent of at least two words, or None where there is too little voice to compare
    them.

    Words that are said as one with others (`in the`) are unstressed by their nature and do not compete.
    """
    voiced = track.hertz > 0
    single = np.array([" " not in word.text for word in words], dtype=bool)
    if voiced.sum() < _MIN_VOICED_FRAMES or single.sum() < 2:
        return None
    times, semitones = track.times[voiced], 12 * np.log2(track.hertz[voiced])
    residual = semitones - np.polyval(np.polyfit(times, semitones, 2), times)
    level_times = (np.arange(len(activity.frame_db)) + 0.5) * FRAME_S
    pitch, level = np.full(len(words), np.nan), np.full(len(words), np.nan)
    for index, word in enumerate(words):
        inside = residual[(times >= word.start_s) & (times < word.end_s)]
        if len(inside) > 2:
            pitch[index] = np.percentile(inside, _PEAK)
        loud = activity.frame_db[(level_times >= word.start_s) & (level_times < word.end_s)]
        if len(loud):
            level[index] = loud.max()
    if np.isnan(pitch).all() or np.isnan(level).all():
        return None
    duration = np.array([word.end_s - word.start_s for word in words])
    score = _PITCH * _standardise(pitch) + _LEVEL * _standardise(level) + _DURATION * _standardise(duration)
    order = np.argsort(np.where(single, score, -np.inf))[::-1]
    return Stress(index=int(order[0]), margin=float(score[order[0]] - score[order[1]]))


def _standardise(values: np.ndarray) -> np.ndarray:
    """Scales to mean 0 and deviation 1; an unmeasured word (unvoiced, silent) counts a little below the
    lowest."""
    deviation = np.nanstd(values) + 1e-6
    values = np.where(np.isnan(values), np.nanmin(values) - deviation, values)
    return (values - values.mean()) / (values.std() + 1e-6)
