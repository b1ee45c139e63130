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
        ("The loudness is no higher than that of anyone else.", {ENERGY: "normal"}),
        ("The speaking rate exceeds that of most women.", {SPEED: "fast"}),
        ("The volume is typical of everyday conversation.", {ENERGY: "normal"}),
        ("The intensity falls short of it.", {ENERGY: "low"}),
        ("He's not quiet, just medium.", {ENERGY: "normal", "gender": "male"}),
        ("She neither hurries nor lingers.", {SPEED: "normal", "gender": "female"}),
        ("The pitch isn't what I'd call high, but it isn't low either.", {PITCH: "normal"}),
        ("The last word is louder than the rest.", {}),
        ("Pace: okay, maybe a bit slow.", {SPEED: "slow"}),
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
        ("Level: weak.", {ENERGY: "low"}),
        ("Loud-ish and quick-ish.", {ENERGY: "high", SPEED: "fast"}),
        ("F, 25-30.", {"gender": "female", "age_level": "young"}),
        ("low pitch, slow, rising", {PITCH: "low", SPEED: "slow", MELODY: "rising"}),
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
    ("text", "course"),
    [
        ("The intonation heads upward over the sentence.", "rising"),
        ("The pitch increases gradually from start to finish.", "rising"),
        ("He finishes on a higher pitch than he started on.", "rising"),
        ("There is an audible upward inflection on the last syllable.", "rising"),
        ("The voice turns up at the end, giving it a questioning quality.", "rising"),
        ("Pitch: low onset, high offset.", "rising"),
        ("F0 slope: positive.", "rising"),
        ("It starts down low and ends way up high.", "rising"),
        ("Pitch decreases steadily throughout.", "falling"),
        ("The melody loses height from word to word.", "falling"),
        ("The voice drops off at the end of the sentence.", "falling"),
        ("Pitch: high onset, low offset.", "falling"),
        ("The tune comes down toward the close of the phrase.", "falling"),
        ("The pitch is highest in the middle of the utterance.", "rising-falling"),
        ("The voice leaps up, then glides down to the final word.", "rising-falling"),
        ("Pitch rises to a peak midway and then declines.", "rising-falling"),
        ("The melody climbs early on but drops toward the end.", "rising-falling"),
        ("The contour is convex: low, high, low.", "rising-falling"),
        ("The pitch is lowest in the middle of the sentence and higher at both ends.", "falling-rising"),
        ("After an initial drop, the pitch climbs again.", "falling-rising"),
        ("A dipping contour.", "falling-rising"),
        ("The melody sinks and then lifts at the very end.", "falling-rising"),
        ("It dips midway before bouncing back.", "falling-rising"),
        ("The pitch stays put from start to finish.", "flat"),
        ("Minimal pitch movement.", "flat"),
        ("The pitch zigzags across the utterance.", "expressive"),
        ("The intonation is lively with frequent rises and falls.", "expressive"),
        ("Her melody is full of twists and turns.", "expressive"),
        ("The pitch keeps going up and down.", "expressive"),
        ("The volume rises toward the end and falls again.", None),
        ("The loudness starts low and goes up.", None),
        ("Her mood sinks toward the end of the scene.", None),
        ("He takes off his coat and sits down.", None),
        ("The tempo picks up and then slows down.", None),
        ("She gets up and then sits back down.", None),
        ("Energy: arch-shaped, with a peak in the middle.", None),
        ("The words trail off.", None),
        ("A V-shaped scar ran down his chin.", None),
    ],
)
def test_the_course_of_the_pitch_is_read(text: str, course: str | None) -> None:
    assert find_claims(text).get(MELODY) == course


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
