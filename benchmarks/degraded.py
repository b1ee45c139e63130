"""Makes of a recording what microphones, rooms, codecs and mixing desks make of it, and sounds that are no
speech.

Every function takes or returns mono samples, float64 [N], at `RATE`; noises have an RMS of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import fftconvolve, lfilter, resample_poly

RATE = 16000
Samples = np.ndarray
Noise = Callable[[int, np.random.Generator], Samples]
"""Takes a number of samples and a source of chance."""


def unit(samples: Samples) -> Samples:
    """Returns the samples scaled to an RMS of 1."""
    return samples / np.sqrt(np.mean(samples**2))


def white(size: int, rng: np.random.Generator) -> Samples:
    return unit(rng.normal(size=size))


def pink(size: int, rng: np.random.Generator, slope: float = 0.5) -> Samples:
    """Returns noise whose amplitude falls with the frequency to the power of `slope`."""
    frequency = np.fft.rfftfreq(size, 1 / RATE)
    frequency[0] = frequency[1]
    spectrum = rng.normal(size=len(frequency)) + 1j * rng.normal(size=len(frequency))
    return unit(np.fft.irfft(spectrum / frequency**slope, size))


def hum(size: int, rng: np.random.Generator) -> Samples:
    """Returns 50 Hz of the mains and its harmonics up to 350 Hz."""
    time = np.arange(size) / RATE
    waves = [np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6)) / k for k in range(1, 8)]
    return unit(np.sum(waves, axis=0))


def music(size: int, rng: np.random.Generator) -> Samples:
    """Returns plucked tones, three or four a second, over two octaves."""
    return unit(_tones(size, rng, step_s=0.3, decay_s=0.4, lowest_hz=220))


def babble_of(voices: Sequence[Samples]) -> Noise:
    """Returns a noise of twelve people who talk at once, made of recordings without pauses around them."""

    def babble(size: int, rng: np.random.Generator) -> Samples:
        mixed = np.zeros(size)
        for index in rng.permutation(len(voices))[:12]:
            voice = unit(voices[index])
            mixed += np.roll(np.tile(voice, size // len(voice) + 2)[:size], rng.integers(size))
        return unit(mixed)

    return babble


def _tones(
    size: int, rng: np.random.Generator, *, step_s: float, decay_s: float, lowest_hz: float
) -> Samples:
    time, mixed = np.arange(size) / RATE, np.zeros(size)
    for start in np.arange(0, size / RATE, step_s):
        hertz = lowest_hz * 2 ** (rng.integers(0, 24) / 12)
        after = time[time >= start] - start
        tone = sum(np.sin(2 * np.pi * k * hertz * after) / k for k in range(1, 6))
        mixed[size - len(after) :] += np.exp(-after / decay_s) * tone
    return mixed


def compressed(samples: Samples, ratio: float) -> Samples:
    """Returns what a compressor with a time constant of 31 ms leaves, at the RMS it had."""
    envelope = np.maximum(lfilter([0.002], [1, -0.998], np.abs(samples)), 1e-4)
    return unit(samples * envelope ** (1 / ratio - 1)) * np.sqrt(np.mean(samples**2))


def in_room(samples: Samples, rt60_s: float, rng: np.random.Generator) -> Samples:
    """Returns the recording far from the speaker in a room: an exponential tail of noise, no direct sound."""
    time = np.arange(int(1.2 * rt60_s * RATE)) / RATE
    tail = rng.normal(size=len(time)) * 10 ** (-3 * time / rt60_s)
    wet = fftconvolve(np.pad(samples, (0, len(time))), tail)[: len(samples) + len(time)]
    return wet * np.sqrt(np.mean(samples**2) / np.mean(wet[: len(samples)] ** 2))


def clipped(samples: Samples, share: float) -> Samples:
    """Returns the recording cut off where that flattens this share of its loud samples (above 1 % of the
    peak), with a peak of 0.5."""
    size = np.abs(samples)
    limit = np.quantile(size[size > 0.01 * size.max()], 1 - share)
    return np.clip(samples, -limit, limit) * (0.5 / limit)


def recoded(samples: Samples, path: Path, format: str, subtype: str, rate: int = RATE) -> Path:
    """Writes the recording with a codec, at a rate in Hz, and returns the path."""
    if rate != RATE:
        samples = resample_poly(samples, rate, RATE)
    soundfile.write(path, np.clip(samples, -1, 1), rate, format=format, subtype=subtype)
    return path


def _no_speech(kind: str, size: int, rng: np.random.Generator) -> Samples:
    time = np.arange(size) / RATE
    if kind == "tone":
        hertz = rng.uniform(120, 500)
        waves = [np.sin(2 * np.pi * k * hertz * time) / k for k in range(1, rng.integers(2, 8))]
        return np.asarray(np.sum(waves, axis=0))
    if kind == "siren":
        swing = np.sin(2 * np.pi * rng.uniform(0.2, 2) * time)
        return np.sin(2 * np.pi * np.cumsum(rng.uniform(450, 700) * 2 ** (0.4 * swing)) / RATE)
    if kind == "engine":
        speed = rng.uniform(40, 140) * 2 ** (0.3 * np.sin(2 * np.pi * rng.uniform(0.1, 0.5) * time))
        pulses = np.diff(np.floor(np.cumsum(speed) / RATE), prepend=0.0)
        return unit(lfilter([1], [1, -0.97], pulses - pulses.mean())) + 0.3 * pink(size, rng)
    if kind == "typing":
        keys = np.zeros(size)
        for start in np.cumsum(rng.gamma(4, 0.04, size=int(size / RATE / 0.16))):
            length = int(rng.uniform(0.02, 0.06) * RATE)
            at = int(start * RATE)
            click = rng.normal(size=length) * np.exp(-np.arange(length) / (0.01 * RATE)) * rng.uniform(0.3, 1)
            keys[at : at + length] += click[: max(0, size - at)]
        return keys + 0.002 * rng.normal(size=size)
    if kind == "wind":
        knots = np.arange(0, size / RATE + 0.25, 0.25)
        gusts = np.interp(time, knots, rng.uniform(-20, 0, len(knots)))
        return pink(size, rng, slope=1.2) * 10 ** (gusts / 20)
    if kind == "plucked":
        return _tones(
            size,
            rng,
            step_s=rng.uniform(0.15, 0.5),
            decay_s=rng.uniform(0.15, 0.6),
            lowest_hz=rng.uniform(100, 300),
        )
    if kind == "band":
        bass = _tones(size, rng, step_s=0.5, decay_s=0.5, lowest_hz=55)
        lead = _tones(size, rng, step_s=0.25, decay_s=0.3, lowest_hz=220)
        beat = rng.normal(size=size) * np.exp(-(time % 0.25) / 0.03)
        return unit(bass) + unit(lead) + 0.5 * unit(beat)
    assert kind == "organ"
    mixed = np.zeros(size)
    for start in np.arange(0, size / RATE, rng.uniform(0.3, 0.8)):
        here = (time >= start) & (time < start + 0.8)
        for interval in (0, 4, 7):
            hertz = 150 * 2 ** ((rng.integers(0, 12) + interval) / 12)
            mixed[here] += sum(np.sin(2 * np.pi * k * hertz * time[here]) / k for k in range(1, 5))
    return mixed


NO_SPEECH = ("tone", "siren", "engine", "typing", "wind", "plucked", "band", "organ")


def no_speech(kind: str, seconds: float, rng: np.random.Generator) -> Samples:
    """Returns a sound of one of `NO_SPEECH` with a peak of 0.5."""
    samples = _no_speech(kind, int(seconds * RATE), rng)
    return 0.5 * samples / np.abs(samples).max()
