"""Recordings as a page draws them: the wave's outline, loudness and pitch over time, few numbers each."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from emotion_task.prosody.activity import FRAME_S, find_activity
from emotion_task.prosody.audio import read_recording
from emotion_task.prosody.f0 import track_f0
from rlcore.errors import DataError
from rlcore.records.files import JsonObject

NUM_POINTS = 240
"""Points of an outline or a contour, at most."""
_RATE = 16000
_FLOOR_DB = -70.0


@lru_cache(maxsize=4096)
def outline(path: str, channel: int | None = None) -> JsonObject | None:
    """Returns `seconds`, and over the recording, in equal steps: `wave` (largest |sample|, of 255), `energy`
    (level in dBFS) and `pitch` (F0 in Hz, 0 where unvoiced). None where it cannot be read."""
    try:
        recording = read_recording(path, _RATE, channel=channel)
    except (DataError, OSError):
        return None
    samples = np.asarray(recording.waveform, dtype=np.float64)
    num_points = min(NUM_POINTS, max(1, int(len(samples) / _RATE / FRAME_S)))
    peaks = np.maximum.reduceat(np.abs(samples), _starts(len(samples), num_points))
    activity = find_activity(samples, _RATE)
    frames = np.zeros(0) if activity is None else activity.frame_db
    energy = frames[_starts(len(frames), num_points)] if len(frames) else frames
    return {
        "seconds": round(len(samples) / _RATE, 3),
        "wave": [int(value) for value in np.round(255 * peaks / max(float(peaks.max()), 1e-9))],
        "energy": [round(float(value), 1) for value in np.maximum(energy, _FLOOR_DB)],
        "pitch": _pitch(samples, num_points),
    }


def _pitch(samples: np.ndarray, num_points: int) -> list[int]:
    """Returns the F0 in the middle of each of `num_points` equal stretches, 0 where it is unvoiced."""
    track = track_f0(samples, _RATE)
    if not len(track.times):
        return [0] * num_points
    middles = (np.arange(num_points) + 0.5) * len(samples) / _RATE / num_points
    nearest = np.searchsorted(track.times, middles).clip(0, len(track.times) - 1)
    is_near = np.abs(track.times[nearest] - middles) < len(samples) / _RATE / num_points + 2 * FRAME_S
    return [round(float(value)) for value in np.where(is_near, track.hertz[nearest], 0.0)]


def _starts(length: int, count: int) -> np.ndarray:
    """Returns where each of at most `count` equal stretches of `length` values begins."""
    return np.unique(np.linspace(0, length, count, endpoint=False).astype(int))
