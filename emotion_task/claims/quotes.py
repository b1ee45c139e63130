"""Finds what reasoning claims about words: that they were spoken, or that they were stressed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import normalize

from emotion_task.parsing import QUOTE, normalise_label

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n\s*\n|\n\s*[-*\u2022]\s")
_SPACE = re.compile(r"[ \t]*\n(?!\s*(?:\n|[-*\u2022]\s))[ \t]*|[ \t]+")
"""White space inside a paragraph."""
_STRESS = re.compile(
    r"\b(?:(?:un)?stress\w*|emphas[ie]\w*|emphatic\w*|accent\w*|"
    r"weight|highlight\w*|hammer\w*|underscor\w*|"
    r"prominen\w+|punch\w*|lean\w* (?:\w+ )?(?:on|into|upon)|st[ao][no]d\w* "
    r"out|stick\w* out|jump\w* out|singled out|hit(?:s|ting)?|hits "
    r"hard|(?:extra|more|special) (?:force|weight|energy)|(?:big|key|main) word|"
    r"b(?:ears?|earing) down on)\b",
    re.IGNORECASE,
)
_DENIAL = re.compile(r"(?:\b(?:rather than|instead of|not|without|no)\b|n't\b)(?!.*\bbut\b)", re.IGNORECASE)
_SAYING = re.compile(
    r"\b(?:says?|said|saying|asks?|asked|asking|goes|utters?|uttered|"
    r"repeats|replies|announces|exclaims|cries|shouts|"
    r"the (?:sentence|question|remark|utterance|statement))\W*$",
    re.IGNORECASE,
)
"""Leads in a quotation of all that was said."""
_PART_OF = re.compile(
    r"\b(?:word|words|part|half|syllable|end|start|beginning|verb|"
    r"noun|pronoun|adjective|adverb) (?:of|in)\W*$",
    re.IGNORECASE,
)
"""Leads in a quotation of which a part is stressed."""
_WHOLE = re.compile(
    r"\b(?:without|no|not|n't|nothing|none)\b.*\b(?:any\w*|single|"
    r"particular|special|marked|noticeable|word)\b|\bnothing\b",
    re.IGNORECASE,
)
"""Says of a whole quotation that no word of it is stressed."""
_SCARE = re.compile(
    r"(?:so-called|kind of|sort of|labell?ed|called|label|option|"
    r"emotion)\W*$",
    re.IGNORECASE,
)
_SCARED = re.compile(
    r"^\W*(?:persona|tone|feel|quality|attitude|manner|vibe|voice|option|label|emotion)\b", re.IGNORECASE
)
_CHAIN = re.compile(r'^(?:[\s,]*(?:and|or|&)?[\s,]*"\d+")+', re.IGNORECASE)
"""Further quotations of the same list."""
_NEXT = re.compile(r'(?:[^"]{0,30}\b(?:on|words?|upon))?\s+"', re.IGNORECASE)
"""Follows a word of stress that speaks of the quotation after it."""
_DOTS = re.compile(r"\.{2,}|\u2026")
"""Dots where words are left out of a quotation."""
_APOSTROPHES = str.maketrans("\u2018\u2019", "''")
_NEAR = 10
"""Most words between a word of stress and a quotation that it may be about."""


def quoted_claims(text: str) -> Iterator[tuple[str, str]]:
    """Yields ("stressed_words" | "quoted_words", the words in lower case) for each quotation.

    A quotation with dots gives a claim for each part around them. Labels of emotions and so-called names are
    no quotations."""
    for sentence, quotes in _sentences(text):
        for start, end, quote in quotes:
            before, after, words = sentence[:start], sentence[end:], clean_words(quote)
            if not words or normalise_label(words) or _SCARE.search(before) or _SCARED.search(after):
                continue
            relation = _stress(before, after) if len(words.split()) <= 4 else None
            if _holds_another(words, quotes) or (
                relation and (_SAYING.search(before) or _PART_OF.search(before))
            ):
                relation = None
            if relation == "denied" and len(words.split()) > 2 and _WHOLE.search(after):
                relation = None
            if relation != "denied":
                kind = "stressed_words" if relation else "quoted_words"
                yield from ((kind, part) for part in map(clean_words, _DOTS.split(quote)) if part)


def _holds_another(words: str, quotes: list[tuple[int, int, str]]) -> bool:
    """Returns whether another quotation of the sentence is a part of this one, which then is all that was
    said: in "that was my coat", "my" is stressed."""
    others = {clean_words(quote) for _, _, quote in quotes} - {words, ""}
    return any(f" {other} " in f" {words} " for other in others)


def clean_words(text: str) -> str:
    """Returns the words in lower case, with single spaces and without punctuation, as quotations and
    transcripts are compared. A letter and its mark are one character, in either Unicode form (NFC, NFD)."""
    return " ".join(re.findall(r"[\w']+", normalize("NFC", text.lower().translate(_APOSTROPHES))))


def _sentences(text: str) -> Iterator[tuple[str, list[tuple[int, int, str]]]]:
    """Yields each sentence with its quotations emptied (what is inside must not end a sentence), and those
    quotations with their start and end."""
    inner: list[str] = []

    def empty(match: re.Match[str]) -> str:
        inner.append(match[1] or match[2] or "")
        tail = "," if inner[-1].rstrip().endswith(",") else ""
        return f'"{len(inner) - 1}"{tail}'

    masked = QUOTE.sub(empty, _SPACE.sub(" ", text))
    for sentence in _SENTENCE_END.split(masked):
        quotes = [(m.start(), m.end(), inner[int(m[1])]) for m in re.finditer(r'"(\d+)"', sentence)]
        if quotes:
            yield sentence, quotes


def _stress(before: str, after: str) -> str | None:
    """Returns `stressed` where a word of stress stands near the quotation, `denied` where that is denied,
    else None."""
    found = None
    for earlier in _STRESS.finditer(before):
        between = before[earlier.end() :]
        if len(between.split()) <= _NEAR:
            found = (
                "denied"
                if _DENIAL.search(between) or _DENIAL.search(before[: earlier.start()][-12:])
                else "stressed"
            )
    if found:
        return found
    after = _CHAIN.sub("", after)
    match = _STRESS.search(after)
    if (
        match is None
        or _NEXT.match(after, match.end())
        or '"' in after[: match.start()]
        or len(after[: match.start()].split()) > _NEAR
    ):
        return None
    return "denied" if _DENIAL.search(after[: match.start()]) else "stressed"
