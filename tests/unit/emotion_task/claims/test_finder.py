from __future__ import annotations

import pytest

from emotion_task.claims.finder import CONTRADICTORY, find_claims, read_claims

PITCH, ENERGY, SPEED, MELODY = "pitch_level", "energy_level", "speed_level", "intonation"


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("The pitch is high.", {PITCH: "high"}),
        ("A high-pitched voice.", {PITCH: "high"}),
        ("He has a deep voice.", {PITCH: "low", "gender": "male"}),
        ("High pitch, low energy and a slow pace.", {PITCH: "high", ENERGY: "low", SPEED: "slow"}),
        ("The pitch is high energy is low", {PITCH: "high", ENERGY: "low"}),
        ("The pitch and the energy are high.", {PITCH: "high", ENERGY: "high"}),
        ("The pitch, energy and rate are low.", {PITCH: "low", ENERGY: "low", SPEED: "slow"}),
        ("She speaks loudly and quickly.", {ENERGY: "high", SPEED: "fast", "gender": "female"}),
        ("She speaks with a normal pitch.", {PITCH: "normal", "gender": "female"}),
        ("The pitch is neither high nor low.", {PITCH: "normal"}),
        ("The voice is neither loud nor quiet.", {ENERGY: "normal"}),
        ("The speech is neither fast nor slow.", {SPEED: "normal"}),
        ("No pitch is heard.", {PITCH: "none"}),
        ("The pitch cannot be heard.", {PITCH: "none"}),
        ("It has no pitch and low energy.", {PITCH: "none", ENERGY: "low"}),
        ("The pitch rises and then falls.", {MELODY: "rising-falling"}),
        ("A falling, then rising melody.", {MELODY: "falling-rising"}),
        ("The rising-falling contour.", {MELODY: "rising-falling"}),
        ("It falls at the end.", {MELODY: "falling"}),
        ("A monotone delivery.", {MELODY: "flat"}),
        ("An expressive intonation.", {MELODY: "expressive"}),
        ("A woman speaks.", {"gender": "female"}),
        ("The pitch is high, typical of fear.", {PITCH: "high"}),
        ("The volume is low, which is usual for sadness.", {ENERGY: "low"}),
        ("The pitch is typical for a woman.", {PITCH: "normal", "gender": "female"}),
        ("A low pitch would suggest sadness, but the pitch is high.", {PITCH: "high"}),
        ("The low pitch would suggest sadness.", {PITCH: "low"}),
    ],
)
def test_claims_are_found(text: str, claims: dict[str, str]) -> None:
    assert find_claims(text) == claims


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The voice is not loud.",
        "The pitch isn't very high.",
        "The pitch is hardly raised.",
        'The words are "he is fast and the pitch is high".',
        "The energy is rising.",
        "The speaker sounds angry.",
        "A high level of detail.",
        "Not a man.",
    ],
)
def test_what_is_no_claim_is_not_found(text: str) -> None:
    assert find_claims(text) == {}


def test_two_values_of_one_attribute_are_a_contradiction() -> None:
    claims = find_claims("The pitch is high. The pitch is low. The speech is fast.")
    assert claims == {PITCH: CONTRADICTORY, SPEED: "fast"}


def test_a_correction_overrules() -> None:
    text = "The pace is fast. Wait, the pace is slow, and the pitch is high."
    assert find_claims(text) == {SPEED: "slow", PITCH: "high"}


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        (
            "He stresses the words 'never' and 'you'.",
            [("stressed_words", "never"), ("stressed_words", "you")],
        ),
        ('The stress is not on "you" but on "me".', [("stressed_words", "me")]),
        ("She says \u201cI\u2019m fine\u201d.", [("quoted_words", "i'm fine")]),
        ('He says "I never ... again".', [("quoted_words", "i never"), ("quoted_words", "again")]),
        ("The speaker's tone and the listeners' mood.", []),
        ('The options are "angry" and "sad"; a so-called "tough guy".', []),
    ],
)
def test_words_are_quoted_or_stressed(text: str, claims: list[tuple[str, str]]) -> None:
    found = [(c.type, c.value) for c in read_claims(text) if c.type in ("stressed_words", "quoted_words")]
    assert found == claims


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("A young woman, an old house.", {"gender": "female", "age_level": "young"}),
        ("She mentions that he left.", {"gender": "female"}),
        ("The speaker is talking to a man.", {}),
        ("It could be a man or a woman.", {}),
        ("An elderly gentleman.", {"gender": "male", "age_level": "elderly"}),
    ],
)
def test_the_speaker_is_described(text: str, claims: dict[str, str]) -> None:
    assert find_claims(text) == claims
