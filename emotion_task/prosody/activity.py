"""Finds where somebody speaks in a recording, and how loud.

Plain RMS counts the pauses, so silence around a recording would make the recording quieter. Here the
threshold of speech comes from the active speech level of ITU-T P.56 (method B), which silence does not
change. The level is the RMS of the frames above that threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_closing, binary_opening, maximum_filter1d
from scipy.signal import lfilter

FRAME_S = 0.01
"""Length of a frame in seconds, of speech activity and of pitch alike."""
_MARGIN_DB = 15.9  # P.56: the threshold lies this far below the active level
_TIME_CONSTANT_S, _HANGOVER_S = 0.03, 0.2
_DIGITAL_SILENCE_DB = -95.0
_FAINTEST_SPEECH_DB = 25.0
"""Decibels below the active level: weak fricatives at the edges still count as speech where the noise
permits."""
_ABOVE_NOISE_DB = 6.0
_MIN_NOISE_FRAMES = 8


@dataclass(frozen=True, slots=True)
class Activity:
    """Holds the speech activity of one recording, in frames of 10 ms."""

    level_dbfs: float
    """RMS of the speech frames in dBFS; a full-scale square wave is 0."""
    noise_floor_dbfs: float | None
    """Median level of the frames without speech, in dBFS; None where the recording has too few of them."""
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


def find_activity(waveform: np.ndarray, sample_rate: int) -> Activity | None:
    """Returns the speech activity of a mono waveform [N], or None where nothing stands out of silence."""
    samples = np.asarray(waveform, dtype=np.float64)
    hop = int(FRAME_S * sample_rate)
    num_frames = len(samples) // hop
    if num_frames < 3:
        return None
    frames = samples[: num_frames * hop].reshape(num_frames, hop)
    frame_db = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    held = _held_envelope(samples, sample_rate, hop, num_frames)
    level = _p56_level(frames, held)
    if level is None:
        return None
    held_db = 20 * np.log10(held[:num_frames] + 1e-9)
    quiet = frame_db[(held_db < level - _MARGIN_DB) & (frame_db > _DIGITAL_SILENCE_DB)]
    noise = float(np.median(quiet)) if len(quiet) >= _MIN_NOISE_FRAMES else None
    faintest = level - _FAINTEST_SPEECH_DB
    threshold = faintest if noise is None else np.clip(noise + _ABOVE_NOISE_DB, faintest, level - _MARGIN_DB)
    # Closing looks past the edges of the array as silence; pad so that it does not eat the first frames.
    loud = np.pad(frame_db > threshold, 15)
    active = binary_opening(binary_closing(loud, np.ones(15)), np.ones(5))[15:-15]
    if not active.any():
        return None
    level = float(10 * np.log10(np.mean(frames[active] ** 2)))
    return Activity(level_dbfs=level, noise_floor_dbfs=noise, frame_db=frame_db, active=active)


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


def _p56_level(frames: np.ndarray, held: np.ndarray) -> float | None:
    """Returns the level for which the frames above (level - 15.9 dB) have exactly that level."""
    peak = held.max()
    if peak < 1e-5:
        return None
    thresholds_db = 20 * np.log10(peak) - np.arange(0, 60, 0.25)
    num_active = (held[None, :] >= 10 ** (thresholds_db[:, None] / 20) * (1 - 1e-9)).sum(axis=1)
    level = 10 * np.log10(np.sum(frames**2) / (num_active * frames.shape[1]))
    excess = level - thresholds_db - _MARGIN_DB  # rises as the threshold falls
    crossing = int(np.argmax(excess >= 0))
    if excess[crossing] < 0:
        return None
    if crossing == 0:
        return float(level[0])
    share = -excess[crossing - 1] / (excess[crossing] - excess[crossing - 1])
    return float(level[crossing - 1] + share * (level[crossing] - level[crossing - 1]))
