"""Kinds of free text that the finder reads, each with words that are in no labelled passage."""

from __future__ import annotations

import pytest

from emotion_task.claims.finder import find_claims, read_claims, read_denials

PITCH, ENERGY, SPEED, MELODY = "pitch_level", "energy_level", "speed_level", "intonation"


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        # polarity
        ("The volume is less high than usual.", {ENERGY: "low"}),
        ("The tempo is not as quick as normal.", {SPEED: "slow"}),
        ("The tempo is not that quick.", {}),
        ("The voice isn't all that loud.", {}),
        ("The pitch is anything but low.", {}),
        ("The voice fails to be loud.", {}),
        ("It is not true that the tempo is slow.", {}),
        ("The pitch is neither low, nor is it high.", {PITCH: "normal"}),
        ("The pitch is not low. It is not high either.", {PITCH: "normal"}),
        ("Is the tempo fast? Yes.", {SPEED: "fast"}),
        ("No lack of volume here.", {ENERGY: "high"}),
        # what is usual
        ("The loudness exceeds that of ordinary conversation.", {ENERGY: "high"}),
        ("The loudness falls short of a conversational level.", {ENERGY: "low"}),
        ("The rate corresponds to that of everyday speech.", {SPEED: "normal"}),
        ("The pitch is within normal limits.", {PITCH: "normal"}),
        ("The tempo is what one would expect.", {SPEED: "normal"}),
        # places and numbers
        ("The pitch sits at the upper end of the scale.", {PITCH: "high"}),
        ("The tempo lies at the low end.", {SPEED: "slow"}),
        ("A mid-range pitch.", {PITCH: "normal"}),
        ("The F0 of 210 Hz is high.", {PITCH: "high"}),
        ("The F0 is 210 Hz.", {}),
        ("The energy is in the 12th percentile.", {ENERGY: "low"}),
        # terse lists
        ("Pitch - low. Energy - high. Rate - average.", {PITCH: "low", ENERGY: "high", SPEED: "normal"}),
        ("Pitch = low | Energy = high | Rate = average", {PITCH: "low", ENERGY: "high", SPEED: "normal"}),
        ("1) quiet 2) slow 3) monotone", {ENERGY: "low", SPEED: "slow", MELODY: "flat"}),
        ("Pitch? High.", {PITCH: "high"}),
        # course
        ("The melody starts low and ends high.", {MELODY: "rising"}),
        (
            "The pitch begins at the top of his range and finishes at the bottom.",
            {MELODY: "falling", "gender": "male"},
        ),
        ("The volume starts low and ends high.", {}),
        ("The pitch goes up, then down, then up again.", {MELODY: "expressive"}),
        # figures
        ("Her words come tumbling out.", {SPEED: "fast", "gender": "female"}),
        ("He leaves long gaps between the words.", {SPEED: "slow", "gender": "male"}),
        ("One has to strain to hear her.", {ENERGY: "low"}),
        ("The melody is all peaks and valleys.", {MELODY: "expressive"}),
        # gender and age
        ("A woman in her 60s.", {"gender": "female", "age_level": "elderly"}),
        ("A bloke of 52 or so.", {"gender": "male", "age_level": "middle-aged"}),
        ("A six-year-old, boy or girl I can't tell.", {"age_level": "child"}),
        ("Three of the 40 words are stressed.", {}),
    ],
)
def test_kinds_of_free_text_are_read(text: str, claims: dict[str, str]) -> None:
    assert find_claims(text) == claims


@pytest.mark.parametrize(
    ("text", "stressed", "quoted"),
    [
        ('In "she took it", the word "took" is stressed.', {"took"}, {"she took it"}),
        ('"She took it": the accent is on "took".', {"took"}, {"she took it"}),
        ('He says "leave it there" without stressing any word.', set(), {"leave it there"}),
    ],
)
def test_a_stressed_word_is_told_from_the_sentence_that_holds_it(
    text: str, stressed: set[str], quoted: set[str]
) -> None:
    claims = read_claims(text)
    assert {c.value for c in claims if c.type == "stressed_words"} == stressed
    assert {c.value for c in claims if c.type == "quoted_words"} == quoted


def test_denials_are_told() -> None:
    assert read_denials("The voice is not loud. The tempo is slow.") == {(ENERGY, "high")}
