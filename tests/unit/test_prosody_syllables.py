from __future__ import annotations

import pytest

from emotion_task.prosody.syllables import count_syllables


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
    ],
)
def test_english_words(text, count):
    assert count_syllables(text) == count


@pytest.mark.parametrize("text", [None, "", "  ", "1984", "über alles", "你好", "?!"])
def test_nothing_is_guessed(text):
    assert count_syllables(text) is None
