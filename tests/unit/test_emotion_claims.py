from __future__ import annotations

import pytest

from emotion_task.evaluation.claims import CONTRADICTORY, find_claims

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
    result = compare_claims(claims, {PITCH: "high", SPEED: "fast"})
    assert (result.num_correct, result.num_claims, result.precision) == (1, 2, 0.5)


def test_agreement_counts_what_can_be_checked() -> None:
    facts = {PITCH: "low", ENERGY: "high", SPEED: "fast", MELODY: "flat"}
    result = compare_claims({PITCH: "low", ENERGY: "low", "gender": "male"}, facts)
    assert (result.num_correct, result.num_claims, result.num_facts, result.num_covered) == (1, 2, 4, 2)
    assert (result.precision, result.coverage) == (0.5, 0.5)
    empty = compare_claims({}, {})
    assert (empty.precision, empty.coverage) == (0.0, 1.0)
