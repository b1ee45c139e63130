"""Finds where somebody speaks in a recording, and how loud.

Plain RMS counts the pauses, so silence around a recording would make the recording quieter. Here the
threshold of speech comes from the active speech level of ITU-T P.56 (method B), which silence does not
change, or from the noise, where noise reaches higher. The level is the power of the frames above that
threshold, less that of the noise.

Noise is told from speech by its steadiness: within a quarter of a second the level of speech moves by 4 dB
and more, but for a held vowel, and that is loud.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np
from scipy.ndimage import (
    binary_closing,
    binary_dilation,
    binary_opening,
    maximum_filter1d,
    minimum_filter1d,
    uniform_filter1d,
)
from scipy.signal import butter, lfilter, sosfilt

FRAME_S = 0.01
"""Length of a frame in seconds, of speech activity and of pitch alike."""
_RUMBLE_HZ = 70.0
"""What lies below says more of the room (rumble, hum, pink noise) than of speech."""
_MARGIN_DB = 15.9  # P.56: the threshold lies this far below the active level
_TIME_CONSTANT_S, _HANGOVER_S = 0.03, 0.2
_DIGITAL_SILENCE_DB = -110.0
_FAINTEST_SPEECH_DB = 25.0
"""Decibels below the active level: weak fricatives at the edges still count as speech where the noise
permits."""
_ABOVE_NOISE_DB, _SMOOTH_FRAMES = 3.0, 5
"""Over 50 ms noise does not reach this much above its median, but for babble."""
_STEADY_FRAMES, _STEADY_DB = 25, 3.5
"""Noise keeps its level over 250 ms to within this standard deviation; a stop closure is shorter."""
_NOISE_SPAN_DB = 4.0
"""Steady stretches this much above the quietest one are noise as well."""
_MIN_NOISE_FRAMES = 8
_LOUDEST_NOISE_DB = 3.0
"""Decibels below the level of the recording, under which steadiness is noise, and not a held vowel."""
_LOUD_NOISE_DB, _LOUD_NOISE_FRAMES = 12.0, 60
"""Nor a soft one: noise that is louder than this many decibels below the level is known by its length."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Holds the speech activity of one recording, in frames of 10 ms."""

    level_dbfs: float
    """RMS of the speech frames, less the noise, in dBFS; a full-scale square wave is 0."""
    noise_floor_dbfs: float | None
    """RMS of the noise in the frames without speech, in dBFS; None where the recording has no such frames."""
    frame_db: np.ndarray
    """Level of each 10 ms frame in dBFS, float64 [F]."""
    active: np.ndarray
    """Frames of speech, bool [F]; gaps shorter than 150 ms are included."""

    @property
    def start_s(self) -> float:
        return float(np.argmax(self.active)) * FRAME_S

    @property
    def end_s(self) -> float:
        return (len(self.active) - float(np.argmax(self.active[::-1]))) * FRAME_S

    @property
    def active_s(self) -> float:
        return float(self.active.sum()) * FRAME_S


def find_activity(
    waveform: np.ndarray, sample_rate: int, spoken: np.ndarray | None = None
) -> Activity | None:
    """Returns the speech activity of a mono waveform [N], or None where nothing stands out of silence.

    Args:
        spoken: frames in which a detector hears speech, bool [F] (`emotion_task.prosody.vad`). Noise is then
            what lies outside; None tells speech from noise by the level.
    """
    samples = np.asarray(waveform, dtype=np.float64)
    hop = int(FRAME_S * sample_rate)
    num_frames = len(samples) // hop
    if num_frames < 3:
        return None
    power = _frame_power(samples, hop, num_frames)
    frame_db = _decibels(power)
    heard = sosfilt(butter(2, _RUMBLE_HZ, "highpass", fs=sample_rate, output="sos"), samples)
    heard_power = _frame_power(heard, hop, num_frames)
    heard_db = _decibels(heard_power)
    held = _held_envelope(heard, sample_rate, hop, num_frames)
    level = _p56_level(heard_power, held)
    if level is None:
        return None
    loud = heard_db > level - _FAINTEST_SPEECH_DB
    if spoken is not None:
        loud &= spoken
        noisy = ~binary_dilation(spoken, np.ones(_STEADY_FRAMES)) & (frame_db > _DIGITAL_SILENCE_DB)
        noisy &= noisy.sum() >= _MIN_NOISE_FRAMES
    elif (noisy := _noise_frames(heard_db, _decibels(held[:num_frames] ** 2), level)).any():
        smooth_db = _decibels(uniform_filter1d(heard_power, _SMOOTH_FRAMES))
        loud &= smooth_db > float(np.median(heard_db[noisy])) + _ABOVE_NOISE_DB
    # Closing looks past the edges of the array as silence; pad so that it does not eat the first frames.
    active = binary_opening(binary_closing(np.pad(loud, 15), np.ones(15)), np.ones(5))[15:-15]
    if not active.any():
        return None
    background = noisy & ~active
    noise = float(power[background].mean()) if background.any() else 0.0
    speech = float(power[active].mean())
    return Activity(
        level_dbfs=_decibels(speech - noise if speech > noise else speech),
        noise_floor_dbfs=_decibels(noise) if background.any() else None,
        frame_db=frame_db,
        active=active,
    )


def _frame_power(samples: np.ndarray, hop: int, num_frames: int) -> np.ndarray:
    frames = samples[: num_frames * hop].reshape(num_frames, hop)
    return np.einsum("fn,fn->f", frames, frames) / hop


@overload
def _decibels(power: float) -> float: ...
@overload
def _decibels(power: np.ndarray) -> np.ndarray: ...
def _decibels(power: float | np.ndarray) -> float | np.ndarray:
    level = 10 * np.log10(power + 1e-12)
    return level if isinstance(level, np.ndarray) else float(level)


def _noise_frames(frame_db: np.ndarray, held_db: np.ndarray, level: float) -> np.ndarray:
    """Returns the frames that are of the noise behind the speech, bool [F]: those of the quietest steady
    stretches, or, where nothing is steady, those far below the level."""
    steady = _steady_frames(frame_db, level)
    if steady.any():
        return steady
    quiet = (np.maximum(frame_db, held_db) < level - _MARGIN_DB) & (frame_db > _DIGITAL_SILENCE_DB)
    return quiet & (quiet.sum() >= _MIN_NOISE_FRAMES)


def _steady_frames(frame_db: np.ndarray, level: float) -> np.ndarray:
    size = _STEADY_FRAMES
    if len(frame_db) < size:
        return np.zeros(len(frame_db), dtype=bool)
    mean = uniform_filter1d(frame_db, size)
    spread = np.sqrt(np.maximum(0, uniform_filter1d(frame_db**2, size) - mean**2))
    whole = minimum_filter1d(frame_db, size) > _DIGITAL_SILENCE_DB
    whole[: size // 2] = whole[len(whole) - size // 2 :] = False  # windows past the edges
    quietest = mean[whole].min(initial=level - _LOUDEST_NOISE_DB)
    steady = whole & (spread < _STEADY_DB) & (mean < quietest + _NOISE_SPAN_DB)
    steady &= mean < level - _LOUDEST_NOISE_DB
    steady = binary_dilation(steady, np.ones(size))
    is_loud = steady.any() and np.median(frame_db[steady]) > level - _LOUD_NOISE_DB
    return steady & (not is_loud or steady.sum() >= _LOUD_NOISE_FRAMES)


def _held_envelope(samples: np.ndarray, sample_rate: int, hop: int, num_frames: int) -> np.ndarray:
    """Returns the envelope [F + 20]: rectified, smoothed twice with 30 ms, each value held for 200 ms.

    The envelope goes on past the end, so that a recording cut right after the last word gives the level of
    one that is not."""
    decay = np.exp(-1 / (_TIME_CONSTANT_S * sample_rate))
    hold = int(_HANGOVER_S / FRAME_S)
    rectified = np.pad(np.abs(samples[: num_frames * hop]), (0, hold * hop))
    smooth = lfilter([(1 - decay) ** 2], [1, -2 * decay, decay**2], rectified)
    envelope = smooth.reshape(num_frames + hold, hop).max(axis=1)
    return maximum_filter1d(envelope, size=hold, origin=(hold - 1) // 2, mode="constant")


def _p56_level(power: np.ndarray, held: np.ndarray) -> float | None:
    """Returns the level for which the frames above (level - 15.9 dB) have exactly that level.

    Compressed, long or steady speech has several such levels. P.56 lets the threshold rise from below, so
    the lowest counts.

    Args:
        power: [F] mean power of each frame.
        held: [F + 20] envelope.
    """
    peak = held.max()
    if peak < 1e-5:
        return None
    thresholds_db = 20 * np.log10(peak) - np.arange(0, 60, 0.25)
    num_active = (held[None, :] >= 10 ** (thresholds_db[:, None] / 20) * (1 - 1e-9)).sum(axis=1)
    level = 10 * np.log10(np.sum(power) / num_active)
    excess = level - thresholds_db - _MARGIN_DB  # rises as the threshold falls, but for the bends named above
    below = np.flatnonzero(excess < 0)
    if not len(below):
        return float(level[0])
    crossing = int(below[-1]) + 1
    if crossing == len(excess):
        return None
    share = -excess[crossing - 1] / (excess[crossing] - excess[crossing - 1])
    return float(level[crossing - 1] + share * (level[crossing] - level[crossing - 1]))
