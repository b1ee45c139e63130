"""Pitch and rate through librosa, whose first call compiles for half a minute."""

from __future__ import annotations

import importlib.util
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from emotion_task.sft.variants import PITCH_ST, RATE, SAMPLE_RATE, vary

pytestmark = pytest.mark.integration


def voice(seconds: float = 1.2, hertz: float = 150.0) -> np.ndarray:
    """Harmonics under a steady envelope: a fundamental that a count of periods can find."""
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    waves = [np.sin(2 * np.pi * hertz * k * times) / k for k in range(1, 12)]
    return (0.1 * np.sum(waves, axis=0)).astype(np.float32)


def fundamental(waveform: np.ndarray) -> float:
    """By the largest peak of the autocorrelation between 60 and 400 Hz."""
    middle = waveform[len(waveform) // 4 : 3 * len(waveform) // 4]
    spectrum = np.abs(np.fft.rfft(middle, 4 * len(middle))) ** 2
    lags = np.fft.irfft(spectrum)[: SAMPLE_RATE // 60]
    return SAMPLE_RATE / (np.argmax(lags[SAMPLE_RATE // 400 :]) + SAMPLE_RATE // 400)


def test_pitch_and_rate_change_alone() -> None:
    if importlib.util.find_spec("librosa") is None:
        pytest.skip("librosa (the extra `variants`) is not installed")
    speech = voice()
    # In a process of its own: vLLM, which other tests start in this one, looks into every module that is
    # loaded, and stumbles over librosa's.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        for step in (-1, 0, 1):
            higher = process.submit(vary, speech, "pitch", step).result(timeout=200)
            assert 12 * np.log2(fundamental(higher) / 150) == pytest.approx(step * PITCH_ST, abs=0.3)
            assert len(higher) == len(speech)
            faster = process.submit(vary, speech, "rate", step).result(timeout=200)
            assert 12 * np.log2(fundamental(faster) / 150) == pytest.approx(0, abs=0.3)
            assert len(faster) == pytest.approx(len(speech) / RATE**step, rel=0.01)
