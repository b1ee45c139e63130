"""Finds claims about the melody of a voice, in what reasoning says goes up and down."""

from __future__ import annotations

from collections.abc import Iterator

from emotion_task.claims.grammar import SentenceReader
from emotion_task.claims.levels import FOREIGN
from emotion_task.claims.lexicon import (
    ADJECTIVES,
    BEARER,
    CONJUNCTIONS,
    CONTOUR,
    DETERMINERS,
    DOWN,
    ENDS,
    ENERGY,
    EVENT_NOUNS,
    LEVEL_WORDS,
    LEVELS,
    MOTIONS,
    MOVEMENTS,
    NOUNS,
    OWN_LEVELS,
    PITCH,
    SPEECH,
    SPEED,
    TOPIC,
    UP,
    VARIATION,
    VOICE,
    words,
)
from emotion_task.claims.placing import last_content, phase
from emotion_task.claims.sentences import MASK
from emotion_task.claims.word_classes import adjectival, adverbial, is_foreign

_SHAPES = words("stated_arched stated_bowed")
_MOVED = MOTIONS | {"up", "down"}
_SMALL = words("slight slightly small minor tiny brief faint subtle gentle modest")
_LEVEL = words("flat monotone monotonous level unvarying stated_flat steady constant")


def contour_claims(reader: SentenceReader) -> Iterator[tuple[str, str]]:
    """Yields (intonation, value) where the sentence says that the pitch goes up, down, or one after the
    other."""
    if not _SHAPES.isdisjoint(reader.tokens):
        return  # an arch: it rises and falls
    directions = list(_directions(reader)) or list(_course(reader))
    runs = [d for k, d in enumerate(directions) if k == 0 or directions[k - 1] != d]
    small = not _SMALL.isdisjoint(reader.tokens) and not _LEVEL.isdisjoint(reader.tokens)
    elaborated = (CONTOUR, "expressive") in reader.made
    if runs and not small and not elaborated:  # flat, with a slight drop at the end
        yield CONTOUR, "-".join(runs) if len(runs) < 3 else "expressive"


def _directions(reader: SentenceReader) -> Iterator[str]:
    moved = -1
    for i, word in enumerate(reader.tokens):
        of_contour = reader.at(i - 1) == ":" and NOUNS.get(reader.at(i - 2)) == CONTOUR
        up = word in UP or (word == "up" and (of_contour or last_content(reader.tokens, i) in _MOVED))
        down = word in DOWN or (word == "down" and (of_contour or last_content(reader.tokens, i) in _MOVED))
        if MASK in reader.tokens[:i] and "by" in reader.tokens[max(0, i - 4) : i]:
            continue  # "beautiful" is highlighted by a small rise
        if i in reader.denied or (word in ("peak", "peaks", "peaking") and not _is_verb(reader, i)):
            continue
        if (up or down) and (
            of_contour
            or _moves_pitch(reader, i)
            or _leaves_start(reader, i, up)
            or (moved >= 0 and _goes_on(reader, moved, i))
        ):
            moved = i
            yield "rising" if up else "falling"


def _from_to(reader: SentenceReader, i: int) -> str:
    """Returns `start` for high, `end` for low in "from high to low"; else an empty string."""
    if reader.at(i - 1) == "from" and reader.at(i + 1) == "to":
        return "start"
    return "end" if (reader.at(i - 1), reader.at(i - 3)) == ("to", "from") else ""


def _is_verb(reader: SentenceReader, i: int) -> bool:
    """Returns whether the pitch "peaks" at `i`; with peaks on a word it does not rise."""
    before = [t for t in reader.tokens[:i] if not adverbial(t) and t not in CONJUNCTIONS and t != ","]
    if reader.at(i - 1) in (",", "then") and NOUNS.get(reader.tokens[0]) in (PITCH, CONTOUR, None):
        before = [t for t in before if t in NOUNS][-1:]  # the pitch starts low, peaks, ...
    return bool(before) and (NOUNS.get(before[-1]) in (PITCH, CONTOUR) or before[-1] in UP | DOWN)


def _goes_on(reader: SentenceReader, moved: int, i: int) -> bool:
    """Returns whether what moved at `moved` goes on to move at `i`: falls, then makes a turn and rises."""
    between = reader.tokens[moved + 1 : i]
    return (
        (reader.tokens[i].endswith("s") or reader.tokens[i] in ("up", "down"))
        and any(t in ("and", "then", "before", ",") for t in between)
        and not any(NOUNS.get(t) not in (None, PITCH, CONTOUR, TOPIC, SPEECH, BEARER) for t in between)
        and len(between) < 8
    )


def _turns(reader: SentenceReader, i: int, k: int) -> bool:
    """Returns whether what moves at `i` moves the other way at `k`."""
    moves = reader.at(k) in (DOWN if reader.tokens[i] in UP else UP)
    return moves and _goes_on(reader, i, k) and not {NOUNS.get(t) for t in reader.tokens} & {ENERGY, SPEED}


def _leaves_start(reader: SentenceReader, i: int, up: bool) -> bool:
    """Returns whether what moves at `i` began at the other end: she starts high and goes down."""
    start = "low" if up else "high"
    began = any(
        LEVELS[PITCH].get(t) == start and phase(reader.tokens, k) == "start"
        for k, t in enumerate(reader.tokens[:i])
    )
    return began and not {NOUNS.get(t) for t in reader.tokens} & {ENERGY, SPEED}


def _course(reader: SentenceReader) -> Iterator[str]:
    """Yields the direction where the pitch is high or low first, and the other in the end."""
    levels: dict[str, str] = {}
    for i, word in enumerate(reader.tokens):
        value = LEVELS[PITCH].get(word)
        if value in ("high", "low") and i not in reader.denied:
            before = [NOUNS[t] for t in reader.tokens[:i] if NOUNS.get(t) in OWN_LEVELS]
            anywhere = {NOUNS.get(t) for t in reader.tokens} & {PITCH, CONTOUR, ENERGY, SPEED}
            when = phase(reader.tokens, i) or _from_to(reader, i)
            if when and (
                before[-1] in (PITCH, CONTOUR)
                if before
                else anywhere <= {PITCH, CONTOUR}
                and (anywhere or "start" in levels or _has_speaker(reader, i))
            ):
                levels[when] = value
    if levels.get("end") and levels.get("start") != levels["end"]:
        yield "rising" if levels["end"] == "high" else "falling"


def _has_speaker(reader: SentenceReader, i: int) -> bool:
    """Returns whether the level at `i` is of a voice, or of what speaks: it starts high and ends low."""
    subjects = reader.subjects(i)
    return bool(subjects) and subjects[0] in (TOPIC, VOICE, BEARER, SPEECH)


def _between_directions(reader: SentenceReader, j: int) -> bool:
    """Returns whether the token at `j` may stand between a direction and its noun: rising and then gently
    falling intonation."""
    token = reader.tokens[j]
    if token in CONJUNCTIONS or token == ",":
        return any(t in UP | DOWN for t in reader.tokens[j + 1 : j + 3])
    return adverbial(token) or token in UP | DOWN or adjectival(token)


def _moves_pitch(reader: SentenceReader, i: int) -> bool:
    """Returns whether the pitch is what goes up or down at `i`."""
    n = len(reader.tokens)
    j = i + 1
    while j < n and reader.tokens[j] not in MOVEMENTS and _between_directions(reader, j):
        j += 1
    follows = reader.tokens[j] if j < n else ""
    if NOUNS.get(follows) in (PITCH, CONTOUR, VARIATION, VOICE) or follows in MOVEMENTS:
        return True
    if follows in ("in", "of") and "at_the_end" not in reader.tokens[i:j]:
        k = j + 1
        while reader.at(k) in DETERMINERS | ADJECTIVES:
            k += 1
        carrier = NOUNS.get(reader.at(k))
        is_when = reader.at(k) in (
            "middle",
            "end",
            "course",
            "first",
            "second",
            "last",
            "center",
            "centre",
            "beginning",
        )
        if carrier in OWN_LEVELS or (reader.tokens[i] in EVENT_NOUNS and not is_when):
            return carrier in (PITCH, CONTOUR, VOICE)
    if NOUNS.get(follows) in (ENERGY, SPEED) and j == i + 1:
        return False
    if reader.tokens[i] in ("rising", "falling", "downward", "upward") and is_foreign(follows):
        return False
    return _subject_moves(reader, i, follows)


def _is_item(reader: SentenceReader, i: int) -> bool:
    """Returns whether the word at `i` is an item of a list: low, slow, falling."""
    return reader.tokens[i] in ("rising", "falling") and {reader.at(i - 1), reader.at(i + 1)} <= {",", ""}


def _subject_moves(reader: SentenceReader, i: int, follows: str) -> bool:
    """Returns whether the subject of a direction, the word before it, is the pitch."""
    if _is_item(reader, i) and reader.made:
        return True
    subjects = reader.subjects(i)
    at_the_end = "at_the_end" in reader.tokens[i : i + 4] or reader.tokens[0] in ENDS
    event = reader.tokens[i] in EVENT_NOUNS and at_the_end
    if event and subjects in ([], [FOREIGN]) and not {NOUNS.get(t) for t in reader.tokens} & {ENERGY, SPEED}:
        return True
    if (
        reader.at(i - 1) in ("final", "terminal")
        and reader.tokens[i] in EVENT_NOUNS
        and follows not in ("in", "of")
    ):
        return True
    if reader.at(i - 1) == MASK:
        return True  # "hello" rises
    if subjects in ([], [FOREIGN]) and reader.tokens[i] in EVENT_NOUNS and follows not in ("in", "of"):
        named = [NOUNS[t] for t in reader.tokens[:i] if NOUNS.get(t) in OWN_LEVELS]
        if named[-1:] in ([CONTOUR], [PITCH]):
            return True
    if not subjects:
        return (
            "at_the_end" in reader.tokens
            or reader.tokens[0] in UP | DOWN
            or any(t in ("final", "plain", "terminal") for t in reader.tokens[max(0, i - 2) : i])
        )
    if subjects[0] in (SPEECH, BEARER) and "at_the_end" in reader.tokens[i : i + 3]:
        return not {NOUNS.get(t) for t in reader.tokens} & {
            ENERGY,
            SPEED,
        }  # each phrase climbs toward its end
    if last_content(reader.tokens, i) in ("line", "lines"):
        return True  # the line falls away
    if subjects[0] == SPEECH and any(_turns(reader, i, k) for k in range(i + 1, i + 9)):
        return True  # each clause lifts off and comes back down
    if subjects[0] == SPEECH:  # the sentence ends in a fall
        return reader.tokens[i] in EVENT_NOUNS and (
            reader.at(i - 1) in DETERMINERS | LEVEL_WORDS or adjectival(reader.at(i - 1))
        )
    return subjects[0] in (PITCH, CONTOUR, VARIATION, VOICE, TOPIC) and not (
        follows == "to" and subjects[0] == VOICE
    )
