"""Tells level words that state no level of the whole: idioms, ranges, changes, moments of the utterance."""

from __future__ import annotations

from emotion_task.claims.lexicon import (
    ADVERBS,
    BEARER,
    BREAKS,
    CHANGES,
    CONJUNCTIONS,
    CONTOUR,
    DETERMINERS,
    DOWN,
    ENDS,
    ENERGY,
    FREE,
    LEVEL_WORDS,
    LEVELS,
    LINKS,
    NOUNS,
    OWN_LEVELS,
    PERSONS,
    PITCH,
    PREPOSITIONS,
    SPEECH,
    STARTS,
    UP,
    VOICE,
    words,
)
from emotion_task.claims.sentences import MASK
from emotion_task.claims.word_classes import adverbial, is_foreign

_MIDDLING = frozenset(word for word, value in LEVELS[PITCH].items() if value == "normal")
_PARTS = words("first last opening initial closing final")
_LISTED = LEVEL_WORDS | ADVERBS | {",", "and", "but"}
_AFTER_ADVERB = words("for at though if so when in as by more less then")
"""Words before which "even" is no level."""
_WITHIN = (
    DETERMINERS | PREPOSITIONS | CONJUNCTIONS | {MASK, "out", "up", "off", "value", "note", "level"} - {"and"}
)


def is_placed(tokens: tuple[str, ...], i: int) -> bool:
    """Returns whether the word at `i` states no level of the whole utterance: it says when, is part of a
    change or a range, or is an idiom."""
    before = tokens[max(0, i - 3) : i]
    if phase(tokens, i) or any(t in CHANGES for t in before[-2:]):
        return True
    if tokens[i] == "even" and (_at(tokens, i + 1) in _AFTER_ADVERB or _at(tokens, i + 1) in LEVEL_WORDS):
        return True
    if tokens[i] in ("moderately", "normally") and _at(tokens, i + 1) in LEVEL_WORDS:
        return True
    if _of_a_part(tokens, i):
        return True
    if tokens[i] in ("soars", "soaring") and _at(tokens, i + 1) in ("on", "at"):
        return True
    if tokens[i] == "average" and _is_statistic(tokens, i):
        return True
    if _spans_to(tokens, i) or _infinitive(tokens, i) or _idiomatic(tokens, i):
        return True
    if tokens[i] in ("up", "down"):
        last = last_content(tokens, i)
        pushed = last.endswith("ed") and any(t in LINKS for t in before)
        return not (last in LINKS or NOUNS.get(last) in OWN_LEVELS or pushed)
    if tokens[i] == "level":
        last = last_content(tokens, i)
        if NOUNS.get(last) == CONTOUR and _at(tokens, i + 1) in ("", ",", "and"):
            return False
        return not (last in LINKS or NOUNS.get(_at(tokens, i + 1)) == CONTOUR)
    return tokens[i] == "middle" and (
        any(t in UP or t in DOWN for t in before)
        or _at(tokens, i + 1) == "aged"
        or (_at(tokens, i + 1) == "of" and NOUNS.get(_at(tokens, i + 3)) == SPEECH)
    )


def _of_a_part(tokens: tuple[str, ...], i: int) -> bool:
    """Returns whether the level at `i` is of some words only: the first words are spoken at a low pitch."""
    for j in range(i - 1, 0, -1):
        if tokens[j] in BREAKS or tokens[j] == ",":
            return False
        if tokens[j] in ("word", "words", "syllable", "syllables") and tokens[j - 1] in _PARTS:
            return True
    return False


def phase(tokens: tuple[str, ...], i: int) -> str:
    """Returns `start` or `end` where the level at `i` is of the beginning or of the end: starts high, begins
    the sentence at the top, low at the start and high at the end. Else an empty string."""
    for j in range(i - 1, max(-1, i - 8), -1):
        if tokens[j] in STARTS or tokens[j] in ENDS:
            return "start" if tokens[j] in STARTS else "end"
        if not (
            tokens[j] in _WITHIN or tokens[j] in LEVEL_WORDS or adverbial(tokens[j]) or NOUNS.get(tokens[j])
        ):
            break
        if tokens[j] in LEVEL_WORDS and i - j > 2:
            break
    near = tokens[i + 1 : i + 4]
    if "at_the_start" in near:
        return "start"
    both = "at_the_start" in tokens or any(t in STARTS for t in tokens)
    return "end" if "at_the_end" in near and both else ""


def beside_loudness(tokens: tuple[str, ...], i: int) -> bool:
    """Returns whether "high" or "low" at `i` stands in a list with a word of loudness, said of a voice or of
    nothing: in "soft, slow, low" low is the pitch."""
    left = right = i
    while _at(tokens, left - 1) in _LISTED and i - left < 12:
        left -= 1
    while _at(tokens, right + 1) in _LISTED and right - i < 12:
        right += 1
    listed, head = tokens[left : right + 1], _at(tokens, left - 1)
    of_voice = (head in ("", ":") or head in LINKS) and _at(tokens, right + 1) == ""
    subject = NOUNS.get(_at(tokens, left - 2), VOICE)
    return (
        of_voice
        and subject in (VOICE, BEARER, SPEECH)
        and "," in listed
        and any(FREE.get(token) == ENERGY for token in listed)
    )


def _is_statistic(tokens: tuple[str, ...], i: int) -> bool:
    """Returns whether `average` at `i` is a statistic: a high average pitch, the average pitch is high."""
    return _at(tokens, i - 1) in LEVEL_WORDS or (
        _at(tokens, i + 1) in NOUNS and _at(tokens, i + 2) in LINKS - {"as", ":"}
    )


def _idiomatic(tokens: tuple[str, ...], i: int) -> bool:
    """Returns whether an idiom leaves no level: a loud burst at the start, the quiet of the room, slow to
    judge, typical of fear, "why" is drawn out."""
    word, after = tokens[i], _at(tokens, i + 1)
    return (
        "at_the_start" in tokens[i + 1 : i + 4]
        or (after == "of" and word in FREE and _at(tokens, i - 1) == "the" and not word.endswith("ness"))
        or (
            after in ("to", "on")
            and word in ("soft", "slow", "quick", "fast")
            and _at(tokens, i - 1) != "too"
            and _at(tokens, i + 2) not in (MASK, "me")
        )
        or (
            after in ("of", "for")
            and word in ("typical", "usual", "standard")
            and PERSONS.isdisjoint(tokens[i + 2 : i + 4])  # typical of a woman: her pitch is normal
        )
        or (word.endswith("ly") and after in LEVEL_WORDS)
        or (word == "drawn_out" and MASK in tokens)
    )


def _spans_to(tokens: tuple[str, ...], i: int) -> bool:
    """Returns whether two levels make a range, which states neither: low to moderate, normal to slightly
    fast. Moderate to normal is normal."""
    if (
        set(tokens[max(0, i - 2) : i + 3]) >= {"to"}
        and sum(t in _MIDDLING for t in tokens[max(0, i - 2) : i + 3]) > 1
    ):
        return False
    after = _at(tokens, i + 3) if adverbial(_at(tokens, i + 2)) else _at(tokens, i + 2)
    before = i - 2 if adverbial(_at(tokens, i - 1)) else i - 1
    return (_at(tokens, i + 1) == "to" and after in LEVEL_WORDS) or (
        _at(tokens, before) == "to" and _at(tokens, before - 1) in LEVEL_WORDS
    )


def _infinitive(tokens: tuple[str, ...], i: int) -> bool:
    """Returns whether an infinitive of another verb holds the level: told to be quiet, but not: seems to be
    quiet."""
    return any(
        tokens[k : k + 2] == ("to", "be") and is_foreign(_at(tokens, k - 1)) for k in range(max(0, i - 4), i)
    )


def _at(tokens: tuple[str, ...], i: int) -> str:
    return tokens[i] if 0 <= i < len(tokens) else ""


def last_content(tokens: tuple[str, ...], i: int) -> str:
    """Returns the last token before `i` that is no adverb, conjunction or comma, or an empty string."""
    skipped = ADVERBS | CONJUNCTIONS | {","}
    return next((t for t in reversed(tokens[:i]) if t not in skipped), "")
