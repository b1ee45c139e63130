"""Tells speech of one person near the microphone from sounds that are none, and from speech that lost its
dynamics.

A mouth closes several times a second, and the level falls by 10 dB and more within 150 ms. It does not where
nobody speaks (tones, sirens, engines, music), nor in a room whose echo fills the closures. The thresholds
were chosen on recordings and are met by nearly all others (docs/explanation/prosody.md).
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, uniform_filter1d

from emotion_task.prosody.activity import FRAME_S, Activity

_FALL_FRAMES, _SMOOTH_FRAMES = 15, 3
_STEEPEST, _LEAST_FALL_DB = 95, 8.0
"""Percentile of the change over 150 ms within speech, and what it reaches: 11 dB in speech, 10 in compressed
speech, 6 where a room rings for 2 s, below 6 in music."""
_MIN_FRAMES = 150
"""Less speech than 1.5 s is not judged by that: a cry may be short, and steady."""
_SPARSE_DB = 9.0
"""Half of the speech lies less than this below its level. Between keys, knocks and clicks there is little."""
_HARDLY_VOICED = 0.15
"""Share of the speech frames with a pitch. Breathy speech has more, whispering and wind less."""
_DARKEST_WHISPER_DB = -5.0
"""`spectral_tilt_db` of whispering is around 0 and above, of wind -14 and less."""
_PULSE_S, _BETWEEN_PULSES, _PULSE_DB = 0.0025, 20, 12.0
"""In 50 ms the loudest 2.5 ms of a creaking voice stand 18 dB and more above their median, of noise 5."""
_DECAY_FRAMES, _DECAY_DB, _EVEN_DB, _AFTER_FRAMES = 20, 0.2, 1.5, 30
"""A decay: over 200 ms the level falls by 0.2 dB and more a frame, within 1.5 dB of a straight line."""
_RING_FRAMES, _RING_FALL_DB, _RING_SHARE = 10, 8.5, 0.25
"""In a room of RT60 = 1 s the steepest falls over 100 ms reach 9 dB, in speech at least 10. Compressed speech
may fall as slowly, but not evenly: decays begin in less than a quarter of its frames, there in half."""
_LOUD_SHARE, _PEAK_QUANTILE, _LEAST_CREST_DB = 0.05, 0.999, 9.0


def like_speech(activity: Activity) -> bool:
    """Tells whether the level moves as that of speech does; what is too short to tell is taken for it."""
    active, level = activity.active, _smooth_level(activity)
    if activity.level_dbfs - float(np.median(level[active])) > _SPARSE_DB:
        return False
    return int(active.sum()) < _MIN_FRAMES or _steepest_fall(level, active, _FALL_FRAMES) >= _LEAST_FALL_DB


def rings(activity: Activity) -> bool:
    """Tells whether a room's echo fills the gaps of speech, so that speech seems longer than it is."""
    level = _smooth_level(activity)
    if len(level) < _DECAY_FRAMES or _steepest_fall(level, activity.active, _RING_FRAMES) >= _RING_FALL_DB:
        return False
    windows = np.lib.stride_tricks.sliding_window_view(level, _DECAY_FRAMES)
    time = np.arange(_DECAY_FRAMES) - (_DECAY_FRAMES - 1) / 2
    slope = windows @ time / (time @ time)
    line = windows.mean(axis=1, keepdims=True) + slope[:, None] * time
    is_even = np.sqrt(np.mean((windows - line) ** 2, axis=1)) < _EVEN_DB
    # The last echo decays after the speech.
    heard = binary_dilation(activity.active, np.ones(2 * _AFTER_FRAMES + 1))[: len(slope)]
    decays = is_even & (slope < -_DECAY_DB) & heard
    return float(decays.sum()) >= _RING_SHARE * float(activity.active.sum())


def _smooth_level(activity: Activity) -> np.ndarray:
    """Returns the level of each frame over 30 ms, in dBFS [F]."""
    power = uniform_filter1d(10 ** (activity.frame_db / 10), _SMOOTH_FRAMES)
    return 10 * np.log10(np.maximum(power, 1e-12))


def _steepest_fall(level: np.ndarray, active: np.ndarray, span: int) -> float:
    """Returns the 95th percentile of the falls within speech over `span` frames, in dB; infinity where none
    fits."""
    falls = (level[:-span] - level[span:])[active[:-span] & active[span:]]
    return float(np.percentile(falls, _STEEPEST)) if len(falls) else float("inf")


def like_voice(voiced_fraction: float, spectral_tilt_db: float | None) -> bool:
    """Tells whether a voice is heard, or what has hardly any may be whispered; unknown is taken for it."""
    is_bright = spectral_tilt_db is None or spectral_tilt_db > _DARKEST_WHISPER_DB
    return voiced_fraction >= _HARDLY_VOICED or is_bright


def pulsed_fraction(samples: np.ndarray, sample_rate: int, activity: Activity) -> float:
    """Returns the share of the speech frames in which the waveform [N] dies away between pulses, as in a
    creaking voice, however slow or uneven it is."""
    size = int(_PULSE_S * sample_rate)
    power = np.square(samples[: len(samples) // size * size]).reshape(-1, size).mean(axis=1) + 1e-12
    if len(power) < _BETWEEN_PULSES:
        return 0.0
    every = round(FRAME_S / _PULSE_S)
    windows = np.lib.stride_tricks.sliding_window_view(power, _BETWEEN_PULSES)[::every]
    prominence = 10 * np.log10(windows.max(axis=1) / np.median(windows, axis=1))
    middle = activity.active[_BETWEEN_PULSES // every // 2 :]
    count = min(len(middle), len(prominence))
    heard = prominence[:count][middle[:count]]
    return float(np.mean(heard > _PULSE_DB)) if len(heard) else 0.0


def is_flattened(samples: np.ndarray, sample_rate: int, activity: Activity) -> bool:
    """Tells whether the peaks of the waveform [N] were cut off, even where a codec or another sample rate has
    made them uneven since: speech reaches at least 10 dB above the RMS of its loud samples, when cut less."""
    active = np.repeat(activity.active, int(FRAME_S * sample_rate))
    size = np.abs(samples[: len(active)][active])
    peak = float(np.quantile(size, _PEAK_QUANTILE))
    loud = size[size > _LOUD_SHARE * peak]
    return bool(20 * np.log10(peak) - 10 * np.log10(np.mean(loud**2)) < _LEAST_CREST_DB)
