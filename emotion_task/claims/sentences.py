"""Splits reasoning text into sentences of plain words, and tells which of their words are asserted at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from emotion_task.claims.expressions import PHRASES, SMALL
from emotion_task.claims.lexicon import (
    BREAKS,
    FREE,
    HYPOTHETICALS,
    LEVEL_WORDS,
    LEVELS,
    NEGATIONS,
    OWN_LEVELS,
    words,
)
from emotion_task.parsing import QUOTE

MASK = "quotation"
"""Token in place of a quotation: what the speaker said is no description of how it was said."""

OWNER = "owner_s"
"""Token in place of the 's of a possessive."""

_SPELLING = (
    (re.compile(r"</?\w+>|[*_#`]"), " "),
    (re.compile(r"[\u2019\u2018]"), "'"),
    (re.compile(r"(?:^|\n)\s*(?:[-•]|\d+[.)])\s|\n\s*\n|;"), ". "),
    (re.compile(r"\s[-\u2013]\s|[\u2014()\[\]]"), " , "),
    (re.compile(r"[-\u2013/]"), " "),
    (re.compile(r"\bcan(?:no|')t\b"), "can not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\b(it|that|there|he|she|what)'s\b"), r"\1 is"),
    (re.compile(r"(?<=\w)'s\b"), f" {OWNER}"),
    (re.compile(r"'(?:d|ll|re|ve|m)?(?!\w)"), ""),
    (re.compile(r"\s+"), " "),
)
_SENTENCE = re.compile(r"[^.!?]+[.!?]*")
_TOKEN = re.compile(r"[a-z0-9_]+|[,:]")
_NEITHER = re.compile(
    rf"\b(?:neither|not) (?:{SMALL} )?(\w+) ?,? (?:nor|or|and not|but not|but also not|not) "
    rf"(?:{SMALL} )?(\w+)\b"
)
_MODALS = words("can could may might would often usually typically sometimes generally")
_SIGNALS = words(
    "signal signals indicate indicates suggest suggests mean means point points express expresses "
    "accompany accompanies show shows mark marks reflect reflects convey conveys go goes"
)
_DEFINITE = words("the his her this that their its such these")
_OPINION = words(
    "say call describe argue guess go lean characterise characterize consider judge rate place "
    "put estimate assess class think believe claim find hear"
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """Holds one sentence as the grammar reads it."""

    tokens: tuple[str, ...]
    """Lower-case words, joined expressions, commas and colons."""
    denied: frozenset[int]
    """Positions of the tokens that are negated, supposed or asked about: no claim rests on them."""


def read_sentences(text: str) -> Iterator[Sentence]:
    """Yields the text's sentences, with each quotation replaced by `MASK`."""
    text = QUOTE.sub(f" {MASK} ", text).lower()
    for pattern, replacement in _SPELLING:
        text = pattern.sub(replacement, text)
    for pattern, replacement in PHRASES:
        text = pattern.sub(replacement, text)
    text = _NEITHER.sub(_between, text)
    for match in _SENTENCE.finditer(text):
        tokens = tuple(_TOKEN.findall(match[0]))
        if tokens:
            asked = range(len(tokens)) if match[0].rstrip().endswith("?") else _denied(tokens)
            yield Sentence(tokens, frozenset(asked))


def _between(match: re.Match[str]) -> str:
    """Returns "normal" or the like for "neither high nor low", where the two are opposites; else the words as
    they were."""
    first, second = match.groups()
    for name in OWN_LEVELS[:3]:
        values = {LEVELS[name].get(first), LEVELS[name].get(second)}
        if len(values) == 2 and not values & {None, "normal"}:
            free = FREE.get(first, FREE.get(second))
            return {"energy_level": "normally_loud", "speed_level": "normally_fast"}.get(str(free), "normal")
    return match[0]


def _denied(tokens: tuple[str, ...]) -> Iterator[int]:
    yield from _generic(tokens)
    negated, supposed = "", False
    for i, token in enumerate(tokens):
        if (
            (token in BREAKS and not (token == "that" and tokens[i - 1] in _OPINION))
            or token == ":"
            or (token == "," and not _goes_on(tokens, i))
        ):
            negated, supposed = "", False
        elif token == "and" or (token == "with" and negated == "no"):
            negated = ""
        if negated or supposed:
            yield i
        negated = negated or (token if token in NEGATIONS else "")
        supposed = supposed or _supposes(tokens, i)


def _generic(tokens: tuple[str, ...]) -> Iterator[int]:
    """Yields positions of what is said of voices in general: "A fast tempo can signal joy" speaks of any
    voice, "the fast tempo may signal joy" of this one. What "would be" is supposed of any voice, also of this
    one."""
    for i, (modal, verb) in enumerate(pairwise(tokens)):
        is_supposed = modal == "would" and verb in ("be", "have")
        if is_supposed or (modal in _MODALS and verb in _SIGNALS):
            start = (
                max((k for k in range(i) if tokens[k] in BREAKS or tokens[k] in (",", "than")), default=-1)
                + 1
            )
            if is_supposed or tokens[start] not in _DEFINITE:
                yield from range(start, i if is_supposed else _clause_end(tokens, i))


def _clause_end(tokens: tuple[str, ...], i: int) -> int:
    return next((k for k in range(i, len(tokens)) if tokens[k] in BREAKS or tokens[k] == ","), len(tokens))


def _goes_on(tokens: tuple[str, ...], i: int) -> bool:
    """Returns whether a list goes on after the comma at `i`: not loud, fast, or high."""
    rest = tokens[i + 1 : i + 4]
    return bool(rest) and (rest[0] in ("or", "nor") or (rest[0] in LEVEL_WORDS and "or" in rest))


def _supposes(tokens: tuple[str, ...], i: int) -> bool:
    """Returns whether what follows `i` is supposed or generally true. "I would say that the pitch is high"
    supposes nothing, and "her voice tends to be soft" is of her."""
    if tokens[i] == "would":
        opinion = any(token in _OPINION for token in tokens[i + 1 : i + 3])
        return not (opinion and any(token in ("i", "one", "we", "you") for token in tokens[:i]))
    if tokens[i] in ("tends", "tend"):
        return not any(token in _DEFINITE for token in tokens[:i])
    return tokens[i] in HYPOTHETICALS or (i == 0 and tokens[i] in ("had", "were"))
