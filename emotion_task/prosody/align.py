"""Finds when each word of a transcript is said.

An aligner is any class with the method of `Aligner`, named as `package.module:Class`; a neural aligner fits
as well as the one here. `SynthesisAligner` needs no model: eSpeak NG says the transcript, with word times,
and dynamic time warping lays that speech over the recording (Malfrère and Dutoit, 1997, Eurospeech,
2631-2634).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol
from unicodedata import normalize

import numpy as np
from scipy.fft import dct
from scipy.signal import resample_poly
from scipy.spatial.distance import cdist

from emotion_task.corpora.synthesis.espeak import Espeak, Speech, require_synthesis
from emotion_task.prosody.activity import FRAME_S, find_activity
from emotion_task.records import Utterance

MAX_SPEECH_S = 60.0
"""Longest speech that is aligned, in seconds: time and memory of the warping grow with its square."""
_WORDS_PER_MINUTE = 165
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_WINDOW_S = 0.025
_NUM_BANDS, _NUM_CEPSTRA = 26, 13


@dataclass(frozen=True, slots=True)
class Word:
    """Holds the times of a word of the transcript, or of several words that are said as one (`in the`)."""

    text: str
    start_s: float
    end_s: float


class Aligner(Protocol):
    """Finds words in a recording. An aligner is built once per process, without arguments."""

    def align(self, waveform: np.ndarray, sample_rate: int, utterance: Utterance) -> list[Word] | None:
        """Returns the words of `utterance.text` with their times in the mono waveform [N]: none where the
        recording is not of that text, None where that cannot be told."""
        ...


class SynthesisAligner:
    """Aligns a recording with eSpeak NG's own reading of the transcript (extra `synth`), in any language that
    eSpeak NG speaks."""

    def __init__(self, max_cost: float = 0.7) -> None:
        """Prepares eSpeak NG.

        Args:
            max_cost: mean cosine distance along the path above which there are no words: transcript and
                recording are then taken not to belong together (measured: docs/explanation/prosody.md).
        """
        require_synthesis()
        self.max_cost = max_cost

    def align(self, waveform: np.ndarray, sample_rate: int, utterance: Utterance) -> list[Word] | None:
        words, cost = self.align_with_cost(waveform, sample_rate, utterance)
        return words if words is None or cost <= self.max_cost else []

    def align_with_cost(
        self, waveform: np.ndarray, sample_rate: int, utterance: Utterance
    ) -> tuple[list[Word] | None, float]:
        """Returns the words and the mean cosine distance along the path; None and infinity where there is
        nothing to align."""
        words = _WORD.findall(normalize("NFC", utterance.text or ""))
        speech = find_activity(np.asarray(waveform, dtype=np.float64), sample_rate)
        if not words or speech is None or speech.active_s > MAX_SPEECH_S:
            return None, np.inf
        said = _say(" ".join(words), _voice(utterance), sample_rate)
        if said is None:
            return None, np.inf
        read, starts, units = said
        reading = find_activity(read, sample_rate)
        if reading is None:
            return None, np.inf
        # Pauses are left out on both sides: they fall where the speaker likes.
        heard, spoken = np.flatnonzero(speech.active), np.flatnonzero(reading.active)
        features = _cepstra(waveform, sample_rate, heard), _cepstra(read, sample_rate, spoken)
        path, cost = warp(*features)
        frames = [
            heard[path[np.searchsorted(path[:, 1], np.searchsorted(spoken, s / FRAME_S)), 0]] for s in starts
        ]
        bounds = [speech.start_s, *(frame * FRAME_S for frame in frames[1:]), speech.end_s]
        aligned = [Word(unit, a, b) for unit, (a, b) in zip(units, pairwise(bounds), strict=True)]
        return aligned, cost


def _voice(utterance: Utterance) -> str:
    language = (utterance.language or "en").lower()
    return ("en-us" if language == "en" else language) + ("+f1" if utterance.gender == "female" else "")


def _say(text: str, voice: str, sample_rate: int) -> tuple[np.ndarray, list[float], list[str]] | None:
    """Returns the reading [N], the start of each spoken unit in seconds and its words; None for an unknown
    voice."""
    with Espeak.fresh(0) as espeak:
        try:
            speech = espeak.speak(text + ".", voice, _WORDS_PER_MINUTE)
        except ValueError:
            return None
    if not speech.word_starts or len(speech.waveform) == 0:
        return None
    starts, units = _units(text, speech)
    return resample_poly(speech.waveform, sample_rate, speech.sample_rate), starts, units


def _units(text: str, speech: Speech) -> tuple[list[float], list[str]]:
    """Returns the spoken units that begin with a word: the parts of one word (numbers) are joined again."""
    begins = {0} | {match.end() for match in re.finditer(" ", text)}
    kept = [
        (start, offset)
        for start, offset in zip(speech.word_starts, speech.word_offsets, strict=True)
        if offset in begins
    ]
    ends = [*(offset for _, offset in kept[1:]), len(text)]
    units = [text[offset:end].strip() for (_, offset), end in zip(kept, ends, strict=True)]
    return [start for start, _ in kept], units


@functools.lru_cache(maxsize=8)
def _mel_filters(sample_rate: int, num_fft: int) -> np.ndarray:
    """Returns triangles [bands, num_fft / 2 + 1], evenly spaced in mel from 80 Hz to 7.6 kHz or to 0.475 of
    the sample rate, whichever is less."""
    top = min(7600.0, 0.475 * sample_rate)
    low, high = 2595 * np.log10(1 + np.array([80.0, top]) / 700)
    edges = 700 * (10 ** (np.linspace(low, high, _NUM_BANDS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(num_fft, 1 / sample_rate)
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return np.clip(
        np.minimum((frequency - left) / (middle - left), (right - frequency) / (right - middle)), 0, 1
    )


def _cepstra(samples: np.ndarray, sample_rate: int, kept: np.ndarray) -> np.ndarray:
    """Returns the mel cepstra of the `kept` frames and their slopes, normalised over the utterance: [F,
    26]."""
    size, hop = int(_WINDOW_S * sample_rate), int(FRAME_S * sample_rate)
    padded = np.pad(np.asarray(samples, dtype=np.float64), ((size - hop) // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][kept] * np.hamming(size)
    num_fft = 2 ** int(np.ceil(np.log2(size)))
    power = np.abs(np.fft.rfft(frames, num_fft)) ** 2 @ _mel_filters(sample_rate, num_fft).T
    cepstra = dct(np.log(power + 1e-7), axis=1, norm="ortho")[:, :_NUM_CEPSTRA]
    cepstra = (cepstra - cepstra.mean(axis=0)) / (cepstra.std(axis=0) + 1e-6)
    return np.concatenate([cepstra, 2 * np.gradient(cepstra, axis=0)], axis=1)


def warp(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, float]:
    """Aligns [N, D] with [M, D] by dynamic time warping under cosine distance.

    Returns:
        The path int [P, 2], rising in both columns from (0, 0) to (N-1, M-1), and its mean distance.
    """
    distance = cdist(first, second, "cosine")
    num_rows, num_columns = distance.shape
    total = np.full((num_rows + 1, num_columns + 1), np.inf)
    total[0, 0] = 0.0
    for row in range(1, num_rows + 1):
        # total[row, j] = d[j] + min(above, diagonal, left); the chain of lefts is a running minimum over
        # differences of the cumulated distance.
        own = distance[row - 1]
        before = np.minimum(total[row - 1, 1:], total[row - 1, :-1])
        cumulated = np.cumsum(own)
        total[row, 1:] = cumulated + np.minimum.accumulate(before - cumulated + own)
    row, column, path = num_rows, num_columns, []
    while row > 0 and column > 0:
        path.append((row - 1, column - 1))
        step = int(np.argmin((total[row - 1, column - 1], total[row - 1, column], total[row, column - 1])))
        row, column = row - (step != 2), column - (step != 1)
    path.reverse()
    return np.array(path), float(np.mean([distance[at] for at in path]))
