"""Estimates who speaks: gender and age, by a classifier that can be exchanged.

A classifier is any class with the method of `SpeakerClassifier`, named as `package.module:Class`. Its answer
is kept beside the measurements with its certainty, and is used only where the corpus does not tell.
`PitchGender` needs no model and is honest about what pitch cannot tell.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from emotion_task.records import OLDEST_YEARS, Utterance
from rlcore.errors import DataError

if TYPE_CHECKING:
    from emotion_task.prosody.measure import Measurement

SURE = 0.9
"""Probability from which an estimated gender is used."""
MEN_HZ, WOMEN_HZ = 119.0, 207.0
"""Mean F0 of adults (Traunmüller and Eriksson, 1995, The frequency range of the voice fundamental)."""
_SPREAD_ST = 5.0
"""Spread of an utterance's median F0 about the mean of its gender: speakers differ by 2 to 3 semitones,
strong feeling adds more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerTraits:
    """Holds the traits that a classifier hears; a trait is None where the classifier cannot tell.

    Raises DataError for an age or a probability that is none: the recording is put aside.
    """

    female_probability: float | None = None
    age_years: float | None = None
    needs_utterances: int = 1
    """Number of a speaker's utterances that must have been heard before the traits are believed."""

    def __post_init__(self) -> None:
        probability, age = self.female_probability, self.age_years
        if probability is not None and not 0 <= probability <= 1:
            raise DataError(f"the speaker classifier's female_probability is {probability!r}, not in [0, 1]")
        if age is not None and not 0 < age < OLDEST_YEARS:
            raise DataError(f"the speaker classifier's age_years is {age!r}, which is no age")


class SpeakerClassifier(Protocol):
    """Hears gender and age. A classifier is built once per process, without arguments."""

    def classify(self, waveform: np.ndarray, sample_rate: int, measurement: Measurement) -> SpeakerTraits:
        """Returns the traits of the speaker of a mono waveform [N], whose prosody was measured already."""
        ...


class PitchGender:
    """Estimates gender, but no age, from the median F0 of an adult's speech, by two Gaussians over semitones.

    The estimate needs several utterances of a speaker: a man who shouts is as high as a woman who does not.
    """

    def classify(self, waveform: np.ndarray, sample_rate: int, measurement: Measurement) -> SpeakerTraits:
        if measurement.f0_median_hz is None:
            return SpeakerTraits()
        distance_st = 12 * math.log2(WOMEN_HZ / MEN_HZ)
        above_middle_st = 12 * math.log2(measurement.f0_median_hz / math.sqrt(MEN_HZ * WOMEN_HZ))
        logit = above_middle_st * distance_st / _SPREAD_ST**2
        return SpeakerTraits(female_probability=1 / (1 + math.exp(-logit)), needs_utterances=5)


def gender_of(female_probability: float | None) -> str | None:
    """Returns `female`, `male`, or None where the probability of neither reaches `SURE`."""
    if female_probability is None or 1 - SURE < female_probability < SURE:
        return None
    return "female" if female_probability >= SURE else "male"


def fill_traits(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Fills gender and age from what the classifier heard, where the corpus does not tell.

    All utterances of a speaker count together (mean log odds; median age), so that one excited sentence does
    not decide. An utterance whose speaker is unknown is judged alone.
    """
    heard: dict[tuple[str, str], list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        heard[_speaker_of(utterance)].append(utterance)
    gender = {
        speaker: gender_of(_mean_probability(_values(rows, "female_probability")))
        for speaker, rows in heard.items()
    }
    age = {
        speaker: float(np.median(ages)) if (ages := _values(rows, "age_years")) else None
        for speaker, rows in heard.items()
    }
    return [
        replace(
            utterance,
            gender=utterance.gender or gender[_speaker_of(utterance)],
            age_years=age[_speaker_of(utterance)] if utterance.age_years is None else utterance.age_years,
        )
        for utterance in utterances
    ]


def _speaker_of(utterance: Utterance) -> tuple[str, str]:
    """Returns (corpus, speaker), or ("", the utterance's id) where the speaker is unknown."""
    return (utterance.dataset, utterance.speaker) if utterance.speaker else ("", utterance.id)


def _values(utterances: Sequence[Utterance], field: str) -> list[float]:
    """Returns the field's values of the utterances that have it; none where these are too few to be
    believed."""
    rows = [u.measured for u in utterances if u.measured and u.measured.get(field) is not None]
    needed = max((row.get("needs_utterances", 1) for row in rows), default=1)
    return [row[field] for row in rows] if len(rows) >= needed else []


def _mean_probability(probabilities: Sequence[float]) -> float | None:
    if not probabilities:
        return None
    odds = np.clip(probabilities, 1e-6, 1 - 1e-6)
    return float(1 / (1 + np.exp(-np.mean(np.log(odds / (1 - odds))))))
