"""Makes the question of stress perception: which word of a transcript stands out."""

from __future__ import annotations

import re
from collections import Counter
from unicodedata import normalize

from emotion_task.records import Utterance

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")


def words_of(text: str) -> tuple[str, ...]:
    """Returns the words of a transcript in their order, without punctuation."""
    return tuple(_WORD.findall(normalize("NFC", text)))


def stress_words(utterance: Utterance) -> tuple[tuple[str, ...], str] | None:
    """Returns the words to choose from and the stressed one, each word once and as the transcript spells it.

    The result is None where the question has no one answer. This is the case without a transcript, with no or
    several stressed words, with one word alone, or where the sentence has the stressed word twice or not at
    all.
    """
    stressed = utterance.stressed_words or []
    if not utterance.text or len(stressed) != 1:
        return None
    words = words_of(utterance.text)
    counts = Counter(word.lower() for word in words)
    spelt = words_of(stressed[0])
    if len(spelt) != 1 or counts[spelt[0].lower()] != 1 or len(counts) < 2:
        return None
    first = {word.lower(): word for word in reversed(words)}
    options = tuple(word for index, word in enumerate(words) if word.lower() not in _lower(words[:index]))
    return options, first[spelt[0].lower()]


def _lower(words: tuple[str, ...]) -> set[str]:
    return {word.lower() for word in words}
