"""Gender and age: what the corpus tells stays, what is heard counts by speaker, what is unsure is null."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from emotion_task.prosody.speaker import MEN_HZ, WOMEN_HZ, PitchGender, SpeakerTraits, fill_traits, gender_of
from emotion_task.records import Utterance
from rlcore.errors import DataError


def probability(hertz: float | None) -> float | None:
    measurement = SimpleNamespace(f0_median_hz=hertz)
    return PitchGender().classify(None, 16000, measurement).female_probability


def utterances(*heard: dict, speaker: str | None = "s", **fields) -> list[Utterance]:
    return [
        Utterance(id=str(i), audio="x", speaker=speaker, measured=row, **fields)
        for i, row in enumerate(heard)
    ]


def test_pitch_gender_rises_with_pitch_and_knows_its_middle():
    assert probability((MEN_HZ * WOMEN_HZ) ** 0.5) == pytest.approx(0.5)
    assert probability(MEN_HZ) == pytest.approx(1 - probability(WOMEN_HZ))
    assert gender_of(probability(85.0)) == "male" and gender_of(probability(240.0)) == "female"
    assert gender_of(probability(160.0)) is None
    assert probability(None) is None


@pytest.mark.parametrize(("value", "gender"), [(0.95, "female"), (0.05, "male"), (0.6, None), (None, None)])
def test_only_what_is_sure_becomes_a_gender(value, gender):
    assert gender_of(value) == gender


def test_one_excited_sentence_does_not_decide():
    rows = [{"female_probability": p} for p in (0.01, 0.04, 0.02, 0.97)] + [{"female_probability": 0.02}] * 4
    assert {u.gender for u in fill_traits(utterances(*rows))} == {"male"}
    assert [u.gender for u in fill_traits(utterances(*rows, speaker=None))] == ["male"] * 3 + ["female"] + [
        "male"
    ] * 4


def test_too_few_utterances_of_a_speaker_are_not_believed():
    row = {"female_probability": 0.99, "needs_utterances": 5}
    assert {u.gender for u in fill_traits(utterances(*[row] * 4))} == {None}
    assert {u.gender for u in fill_traits(utterances(*[row] * 5))} == {"female"}


def test_what_the_corpus_tells_stays():
    rows = [{"female_probability": 0.99, "age_years": 30.0}, {"female_probability": 0.99, "age_years": 70.0}]
    told = fill_traits(utterances(*rows, gender="male", age_years=20.0))
    assert {(u.gender, u.age_years) for u in told} == {("male", 20.0)}
    assert {u.age_years for u in fill_traits(utterances(*rows))} == {50.0}
    assert {u.gender for u in fill_traits(utterances({}, {}))} == {None}


@pytest.mark.parametrize(
    ("age", "level"),
    [(None, None), (5, "child"), (13, "young"), (39.9, "young"), (40, "middle-aged"), (60, "elderly")],
)
def test_age_groups(age, level):
    assert Utterance(id="a", audio="x", age_years=age).age_level == level


@pytest.mark.parametrize("traits", [{"age_years": 5553.0}, {"age_years": 0.0}, {"female_probability": 1.1}])
def test_a_classifier_that_hears_nonsense_costs_the_recording_alone(traits):
    """A manifest with such an age could not be read again."""
    with pytest.raises(DataError, match="the speaker classifier's"):
        SpeakerTraits(**traits)
