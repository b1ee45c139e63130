"""Tracks fundamental frequency: by Praat's autocorrelation where parselmouth is installed, else by our own.

parselmouth (GPL-3) is an optional extra; `_track_numpy` follows the same paper, so that levels agree.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass

import numpy as np

from emotion_task.prosody.activity import FRAME_S

FLOOR_HZ, CEILING_HZ = 60.0, 1000.0
_USUAL_CEILING_HZ, _SHRILL_HZ = 600.0, 300.0
"""Speech stays below the first; where the upper quartile is above the second it may be a scream, whose higher
pitch the usual ceiling would show an octave too low."""
_VOICING_THRESHOLD = 0.6
"""This lies above Praat's default of 0.45: whispering must not pass for voice."""
_MIN_FRAMES = 5
"""Fewer voiced frames than this in the first pass tell nothing about the speaker's range."""


@dataclass(frozen=True, slots=True)
class F0Track:
    """Holds pitch over time, in frames 10 ms apart."""

    times: np.ndarray
    """Middle of each frame in seconds, float64 [F]."""
    hertz: np.ndarray
    """Pitch of each frame in Hz, float64 [F]; 0 where unvoiced."""


def track_f0(waveform: np.ndarray, sample_rate: int) -> F0Track:
    """Tracks F0 of a mono waveform [N] between 60 and 1000 Hz.

    Praat (parselmouth) does the tracking where it is installed, else the numpy version does.

    There are two passes (De Looze and Hirst, 2008): the quartiles of the first set the floor and the ceiling
    of the second, which removes most octave errors. A waveform too short for a frame gives an empty track.
    """
    track = _praat if importlib.util.find_spec("parselmouth") else _track_numpy
    samples = np.asarray(waveform, dtype=np.float64)
    if len(samples) < 4 / FLOOR_HZ * sample_rate:
        return F0Track(np.zeros(0), np.zeros(0))
    for ceiling in (_USUAL_CEILING_HZ, CEILING_HZ):
        first = track(samples, sample_rate, FLOOR_HZ, ceiling, 2 * FRAME_S)
        voiced = first.hertz[first.hertz > 0]
        if len(voiced) < _MIN_FRAMES:
            return track(samples, sample_rate, FLOOR_HZ, ceiling, FRAME_S)
        low, high = np.percentile(voiced, [25, 75])
        if high < _SHRILL_HZ:
            break
    return track(samples, sample_rate, max(FLOOR_HZ, 0.7 * low), min(ceiling, 2.2 * high), FRAME_S)


def _praat(samples: np.ndarray, sample_rate: int, floor: float, ceiling: float, step_s: float) -> F0Track:
    import parselmouth

    pitch = parselmouth.Sound(samples, sample_rate).to_pitch_ac(
        time_step=step_s, pitch_floor=floor, pitch_ceiling=ceiling, voicing_threshold=_VOICING_THRESHOLD
    )
    return F0Track(pitch.xs(), pitch.selected_array["frequency"])


def _track_numpy(
    samples: np.ndarray, sample_rate: int, floor: float, ceiling: float, step_s: float
) -> F0Track:
    """Divides the autocorrelation of windowed frames by the window's own, then takes the cheapest path
    through the candidates (Boersma, 1993, Proceedings of the Institute of Phonetic Sciences 17, 97-110)."""
    num_candidates, octave_cost, jump_cost, switch_cost = 8, 0.01, 0.35, 0.14
    size, hop = int(3 / floor * sample_rate), int(step_s * sample_rate)
    num_frames = 1 + (len(samples) - size) // hop
    if num_frames < 1:
        return F0Track(np.zeros(0), np.zeros(0))
    samples = samples - samples.mean()
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop][:num_frames]
    loudness = np.abs(frames).max(axis=1) / max(np.abs(samples).max(), 1e-12)
    window, window_acf = _window(size)
    windowed = (frames - frames.mean(axis=1, keepdims=True)) * window
    num_fft = 2 ** int(np.ceil(np.log2(2 * size)))
    acf = np.fft.irfft(np.abs(np.fft.rfft(windowed, num_fft)) ** 2, num_fft)[:, : size // 2]
    acf = acf / np.maximum(acf[:, :1], 1e-20) / window_acf[: size // 2]

    shortest, longest = int(sample_rate / ceiling), min(int(sample_rate / floor), size // 2 - 2)
    middle, left, right = acf[:, 1:-1], acf[:, :-2], acf[:, 2:]
    lags = np.arange(1, acf.shape[1] - 1)
    peak = (middle > left) & (middle >= right) & (lags >= shortest) & (lags <= longest)
    curve = left - 2 * middle + right
    shift = np.where(np.abs(curve) > 1e-12, 0.5 * (left - right) / np.where(curve == 0, 1, curve), 0)
    height = np.minimum(middle - 0.25 * (left - right) * shift, 1.0)
    frequency = sample_rate / (lags + np.clip(shift, -0.5, 0.5))
    strength = np.where(peak, height + octave_cost * np.log2(frequency / floor), -np.inf)
    best = np.argpartition(-strength, num_candidates - 1, axis=1)[:, : num_candidates - 1]
    rows = np.arange(num_frames)[:, None]
    # Candidate 0 is "unvoiced"; quiet frames make it stronger (Boersma's equation 23).
    unvoiced = _VOICING_THRESHOLD + np.maximum(0, 2 - loudness / (0.03 / (1 + _VOICING_THRESHOLD)))
    strength = np.concatenate([unvoiced[:, None], strength[rows, best]], axis=1)
    hertz = np.concatenate([np.zeros((num_frames, 1)), frequency[rows, best]], axis=1)
    path = _cheapest_path(strength, hertz, jump_cost, switch_cost)
    times = (np.arange(num_frames) * hop + size / 2) / sample_rate
    return F0Track(times, hertz[np.arange(num_frames), path])


@functools.lru_cache(maxsize=64)
def _window(size: int) -> tuple[np.ndarray, np.ndarray]:
    window = np.hanning(size)
    acf = np.fft.irfft(np.abs(np.fft.rfft(window, 2 * size)) ** 2, 2 * size)[:size]
    return window, np.maximum(acf / acf[0], 1e-6)


def _cheapest_path(
    strength: np.ndarray, hertz: np.ndarray, jump_cost: float, switch_cost: float
) -> np.ndarray:
    """Returns the candidate of each frame [F] that maximises strength less the cost of transitions
    (Viterbi)."""
    octaves = np.log2(np.maximum(hertz, 1.0))
    voiced = hertz > 0
    score, back = strength[0], np.zeros(strength.shape, dtype=np.int64)
    for frame in range(1, len(strength)):
        both = voiced[frame - 1][:, None] & voiced[frame][None, :]
        jump = jump_cost * np.abs(octaves[frame - 1][:, None] - octaves[frame][None, :])
        switch = switch_cost * (voiced[frame - 1][:, None] != voiced[frame][None, :])
        total = score[:, None] - np.where(both, jump, switch)
        back[frame] = total.argmax(axis=0)
        score = total.max(axis=0) + strength[frame]
    path = np.empty(len(strength), dtype=np.int64)
    path[-1] = int(score.argmax())
    for frame in range(len(strength) - 1, 0, -1):
        path[frame - 1] = back[frame, path[frame]]
    return path
