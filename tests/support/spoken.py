"""Sounds like speech, whose pitch, level and timing are known."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

RATE = 16000


def voice(hertz: float, seconds: float) -> np.ndarray:
    """Harmonics through three resonances, with an RMS of 1."""
    phase = 2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE
    pulses = sum(np.cos(k * phase) for k in range(1, 1 + int(6000 / hertz)))
    for formant, width in ((700, 110), (1200, 120), (2600, 160)):
        radius = np.exp(-np.pi * width / RATE)
        pulses = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2], pulses)
    return pulses / np.sqrt(np.mean(pulses**2))


def speech(num_syllables: int = 7, level_db: float = -26.0, seed: int = 0) -> np.ndarray:
    """Syllables of uneven strength over 15 dB, with gaps shorter than a pause between them."""
    rng, parts = np.random.default_rng(seed), []
    for _ in range(num_syllables):
        length = rng.uniform(0.12, 0.22)
        rise = np.sin(np.pi * np.linspace(0, 1, int(length * RATE))) ** 0.5
        parts += [voice(rng.uniform(110, 140), length) * rise * 10 ** (rng.uniform(-12, 3) / 20)]
        parts += [np.zeros(int(0.05 * RATE))]
    samples = np.concatenate(parts)
    return samples / np.sqrt(np.mean(samples**2)) * 10 ** (level_db / 20)


def pink(size: int, seed: int = 0) -> np.ndarray:
    rng, frequency = np.random.default_rng(seed), np.fft.rfftfreq(size)
    frequency[0] = frequency[1]
    samples = np.fft.irfft((rng.normal(size=(2, len(frequency))).T @ [1, 1j]) / np.sqrt(frequency), size)
    return samples / np.sqrt(np.mean(samples**2))


def in_pauses(samples: np.ndarray, seconds: float = 1.0) -> np.ndarray:
    return np.pad(samples, int(seconds * RATE))
