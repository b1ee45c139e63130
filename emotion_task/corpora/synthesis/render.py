"""A design to a waveform: espeak-ng's monotone, Praat's PSOLA melody, then voice quality and level.

Stages: speech with word times; formants scaled by resampling; pitch replaced by overlap-add (or the
voice source replaced by noise through the LPC filter, for whispering); a louder and higher stressed
word; spectral tilt; level; a little background noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter, resample_poly

from emotion_task.corpora.synthesis.design import Design
from emotion_task.corpora.synthesis.espeak import Espeak, Speech

SAMPLE_RATE = 16000

TimeFunction = Callable[[np.ndarray], np.ndarray]

_BASE_WORDS_PER_MINUTE = 165
_BASE_LEVEL_DBFS = -27.0
_NOISE_DBFS = (-68.0, -56.0)
_F0_LIMITS = (65.0, 550.0)
_TREMOR_HZ = 6.2
_STRESS_GAIN_DB = 2.5


def render(design: Design) -> np.ndarray:
    """Renders one utterance: float64 [N] at 16 kHz, within -1..1. The same design gives the same samples."""
    rng = np.random.default_rng(design.seed)
    waveform, bump = _monotone(design)
    waveform = _whisper(waveform, rng) if design.whispered else _intone(waveform, design, bump, rng)
    times = np.arange(len(waveform)) / SAMPLE_RATE
    waveform = waveform * 10 ** (_STRESS_GAIN_DB * bump(times) / 20)
    waveform = lfilter([1.0, -design.tilt], [1.0], waveform)
    loud = np.abs(waveform) > 0.02 * np.abs(waveform).max()
    level = _BASE_LEVEL_DBFS + design.energy_db + design.speaker.gain_db
    waveform = waveform / np.sqrt(np.mean(waveform[loud] ** 2)) * 10 ** (level / 20)
    waveform = waveform + rng.normal(size=len(waveform)) * 10 ** (rng.uniform(*_NOISE_DBFS) / 20)
    return np.tanh(waveform) if np.abs(waveform).max() > 0.98 else waveform


def _monotone(design: Design) -> tuple[np.ndarray, TimeFunction]:
    """Trimmed speech in the speaker's voice [N], and the bump over the stressed word.

    Sampling the library's output as if it had another rate moves the formants (and the tempo, which
    the requested words per minute undo)."""
    speaker = design.speaker
    tempo = math.exp(design.log_rate + speaker.log_rate) / speaker.vocal_tract
    with Espeak.fresh(design.seed) as espeak:
        rate = int(np.clip(_BASE_WORDS_PER_MINUTE * tempo, 80, 420))
        speech = espeak.speak(design.text + ".", speaker.voice, rate)
    source_rate = round(speech.sample_rate * speaker.vocal_tract / 50) * 50
    waveform = resample_poly(speech.waveform, SAMPLE_RATE, source_rate)
    loud = np.flatnonzero(np.abs(waveform) > 0.003)
    start, end = max(0, loud[0] - 400), min(len(waveform), loud[-1] + 800)
    stretch = speech.sample_rate / source_rate
    word_start, word_end = _word_times(speech, design)
    bump = _bump(word_start * stretch - start / SAMPLE_RATE, word_end * stretch - start / SAMPLE_RATE)
    return waveform[start:end], bump


def _word_times(speech: Speech, design: Design) -> tuple[float, float]:
    """Start and end of the stressed word in seconds of `speech`."""
    words = design.text.split()
    offset = len(" ".join(words[: design.stressed_word])) + (design.stressed_word > 0)
    unit = max(index for index, start in enumerate(speech.word_offsets) if start <= offset)
    ends = [*speech.word_starts[1:], len(speech.waveform) / speech.sample_rate]
    return speech.word_starts[unit], ends[unit]


def _bump(start: float, end: float) -> TimeFunction:
    """One at the middle of a word, falling to zero around it."""
    width = max(0.06, (end - start) / 3)
    return lambda times: np.exp(-(((times - (start + end) / 2) / width) ** 2))


def _intone(waveform: np.ndarray, design: Design, bump: TimeFunction, rng: np.random.Generator) -> np.ndarray:
    import parselmouth
    from parselmouth.praat import call

    duration = len(waveform) / SAMPLE_RATE
    times = np.arange(0, duration, 0.025)
    position = np.clip(times / max(duration - 0.1, 0.1), 0, 1)
    semitones = (
        design.level_st
        + design.range_st * (_contour(position, design.contour) + 0.25 * bump(times))
        + design.tremor_st * np.sin(2 * np.pi * _TREMOR_HZ * times + rng.uniform(0, 6))
        + rng.normal(0, 0.1, len(times))
    )
    f0 = np.clip(design.speaker.f0_hz * 2 ** (semitones / 12), *_F0_LIMITS)
    sound = parselmouth.Sound(waveform, SAMPLE_RATE)
    manipulation = call(sound, "To Manipulation", 0.02, 65, 400)
    tier = call("Create PitchTier", "melody", 0, duration)
    for time, hertz in zip(times, f0, strict=True):
        call(tier, "Add point", float(time), float(hertz))
    call([tier, manipulation], "Replace pitch tier")
    return call(manipulation, "Get resynthesis (overlap-add)").values[0]


def _contour(position: np.ndarray, contour: str) -> np.ndarray:
    """Relative pitch in -0.5..0.5 over position 0..1."""
    if contour == "falling":
        return 0.5 - position
    if contour == "rising":  # late, as in a question
        return np.where(position < 0.6, -0.3, -0.3 + (position - 0.6) * 2)
    if contour == "rising-falling":
        return 0.5 - 4 * (position - 0.5) ** 2
    if contour == "falling-rising":
        return 4 * (position - 0.5) ** 2 - 0.5
    return np.zeros_like(position)


def _whisper(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Excites the same vocal tract (LPC filter) by noise: no voicing at all."""
    import parselmouth
    from parselmouth.praat import call

    tract = call(parselmouth.Sound(waveform, SAMPLE_RATE), "To LPC (burg)", 10, 0.025, 0.005, 50.0)
    noise = parselmouth.Sound(rng.normal(0, 0.1, len(waveform)), SAMPLE_RATE)
    breath = lfilter([1.0, -0.4], [1.0], call([noise, tract], "Filter", "no").values[0])
    # Noise through narrow resonances swells at random: give it the loudness contour of the speech.
    loudness, own = (uniform_filter1d(signal**2, int(0.05 * SAMPLE_RATE)) for signal in (waveform, breath))
    return breath * np.sqrt(np.maximum(loudness, 0) / np.maximum(own, 1e-12 + 1e-6 * own.max()))
