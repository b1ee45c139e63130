"""The part of a recording that the model hears. Every reader of audio (SFT, rollout, reward model) goes
through here, so that what was learnt on is what is asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from emotion_task.prosody.audio import load_audio

_FRAME_SECONDS = 0.02
_SILENCE_DB = 40.0
"""Frames this far below the loudest one are silence, whatever the recording's gain."""
_MARGIN_FRAMES = 2


class FeatureExtractor(Protocol):
    """A processor's feature extractor, as far as the window depends on it."""

    sampling_rate: int
    """Rate of its input in Hz."""


def model_waveform(
    path: str | Path, feature_extractor: FeatureExtractor, max_seconds: float | None = None
) -> np.ndarray:
    """Reads audio at the feature extractor's rate, trims silence at both ends and cuts to its window.

    A checkpoint whose tower was trained on recordings as they are says `"trim_silence": false` in its
    preprocessor's settings: then the silence stays.

    Args:
        feature_extractor: gives `sampling_rate` and, where its window is fixed, `chunk_length` in seconds.
        max_seconds: a shorter window, for processors whose own is longer than the task needs.

    Returns:
        float32 [T], mono; the window's first samples where the speech is longer.

    Raises:
        DataError: a missing, unreadable or empty file (silence is not an error: there is nothing to trim).
    """
    rate = int(feature_extractor.sampling_rate)
    waveform = load_audio(path, rate)
    if getattr(feature_extractor, "trim_silence", True):
        waveform = trim_silence(waveform, rate)
    limits = [s for s in (getattr(feature_extractor, "chunk_length", None), max_seconds) if s is not None]
    if limits:
        waveform = waveform[: int(min(limits) * rate)]
    return np.ascontiguousarray(waveform, dtype=np.float32)


def trim_silence(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns the samples [T'] of `waveform` [T] from its first to its last frame that is not silence, with
    40 ms to spare. A waveform without any sound comes back whole."""
    size = int(_FRAME_SECONDS * sample_rate)
    num_frames = len(waveform) // size
    if num_frames < 2:
        return waveform
    energy = np.square(waveform[: num_frames * size].reshape(num_frames, size), dtype=np.float64).mean(axis=1)
    if energy.max() <= 0:
        return waveform
    active = np.flatnonzero(energy > energy.max() * 10 ** (-_SILENCE_DB / 10))
    first, last = max(0, active[0] - _MARGIN_FRAMES), min(num_frames, active[-1] + 1 + _MARGIN_FRAMES)
    # The remainder after the last whole frame belongs to the last frame.
    return waveform[first * size : len(waveform) if last == num_frames else last * size]
