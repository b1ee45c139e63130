from __future__ import annotations

import pytest

from emotion_task.prosody.syllables import count_syllables, count_vowels


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Kids are talking by the door", 7),
        ("Dogs are sitting by the door", 7),
        ("little table", 4),
        ("She smiled", 2),
        ("wanted", 2),
        ("boxes and houses", 5),
        ("I can't", 2),
        ("the", 1),
        ("Someone is here!", 4),
        ("everything even", 5),
        ("What are you doing? I'm going home, saying nothing", 13),
        ("I couldn't, it isn't", 6),
        ("lovely people", 4),
        ("completely careless movement", 7),
        ("cement, element, rely", 7),
        ("\u201cWell\u2026 really?\u201d \u2014 I can\u2019t \u2013 no", 6),
    ],
)
def test_english_words(text, count):
    assert count_syllables(text) == count


@pytest.mark.parametrize("text", [None, "", "  ", "1984", "über alles", "你好", "?!"])
def test_nothing_is_guessed(text):
    assert count_syllables(text) is None


@pytest.mark.parametrize(
    ("text", "language", "count"),
    [
        ("Heute Abend könnte ich es ihm sagen.", "de", 11),
        ("Das will sie am Mittwoch abgeben", "de", 9),
        ("Buenas noches amigo", "es", 7),
        ("Kids are talking by the door", "en-GB", 7),
    ],
)
def test_other_languages_are_counted_by_their_phonemes(text, language, count):
    if language != "en-GB":
        pytest.importorskip("espeakng_loader")
    assert count_syllables(text, language) == count


def test_an_unknown_language_is_null():
    assert count_syllables("hello there", "xx") is None


@pytest.mark.parametrize(
    ("phonemes", "count"),
    [("haʊs", 1), ("bʌtn\u0329", 2), ("ði.ɐ", 2), ("i\u02d0", 1), ("a\u0303", 1), ("pst", 0)],
)
def test_vowels_of_a_transcription(phonemes, count):
    assert count_vowels(phonemes) == count
