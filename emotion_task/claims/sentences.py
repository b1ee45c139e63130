"""Splits reasoning text into sentences of plain words, and tells which of their words are asserted at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, zip_longest

from emotion_task.claims.courses import COURSES
from emotion_task.claims.expressions import PHRASES, SMALL
from emotion_task.claims.figures import read_figures
from emotion_task.claims.lexicon import (
    ADVERBS,
    BREAKS,
    FREE,
    HYPOTHETICALS,
    LEVEL_WORDS,
    LEVELS,
    NEGATIONS,
    NOUNS,
    OWN_LEVELS,
    words,
)
from emotion_task.claims.norms import COMPARISONS, NUMBERS, PLACES, Replacement
from emotion_task.claims.talk import LEVEL_NAMES, PAIRS, TALK
from emotion_task.parsing import QUOTE

MASK = "quotation"
"""Token in place of a quotation: what the speaker said is no description of how it was said."""

OWNER = "owner_s"
"""Token in place of the 's of a possessive."""

_ATTRIBUTES = (
    r"(?:pitch|f0|volume|loudness|energy|intensity|speed|rate|tempo|"
    r"pace|contour|intonation|melody|gender|age|stress)"
)
_FIELDS = (
    r"(?:pitch|f0|volume|loudness|energy|intensity|level|speed|"
    r"rate|tempo|pace|contour|intonation|melody|tune|"
    r"ending|voice|register|speaker|gender|sex|age|delivery|cadence|dynamics|stress|accent|emphasis)"
)
"""Heads of a terse list: what follows "pitch -" or "pitch?" is said of it."""


def _symbol(match: re.Match[str]) -> str:
    return {">": " above ", "<": " below "}.get(match[0].strip(), " close to ")


_ABBREVIATIONS = (
    (re.compile(r"\bi\.e\.|\be\.g\.|\bviz\."), ","),
    (re.compile(r"\b(ca|vs|re|approx|resp|st)\.(?= \w)"), r"\1"),
    (re.compile(r"\b(avg|approx|vol|med|fem|int)\."), r"\1"),
)
_SPELLING: tuple[tuple[re.Pattern[str], Replacement], ...] = (
    (re.compile(r"</?\w+>|[*_#`]"), " "),
    (re.compile(r"[\u2019\u2018]"), "'"),
    (
        re.compile(
            r"(?<=[a-z])\s*[<>~\u2248]\s*(?=(?:the |his |her )?(?:average|"
            r"normal|norm|mean|baseline|usual|typical))"
        ),
        _symbol,
    ),
    (
        re.compile(
            r"(?:^|\n)\s*(?:[-•\u2013\u2014]+|\d+[.)])\s|\s\(?\d+\)\s|\n\s*\n|"
            r";|\s[|/]{1,2}\s|\s\+\s"
        ),
        ". ",
    ),
    (re.compile(rf"((?:^|[.\n,])\s*(?:\w+ )?{_FIELDS}(?: \w+)?)\s+[-\u2013\u2014]+\s+"), r"\1: "),
    (re.compile(r"\u2191"), " up "),
    (re.compile(r"\u2193"), " down "),
    (re.compile(r"\b(low|high|loud|quiet|slow|fast|quick|soft|deep|flat)-?ish\b"), r"\1"),
    (re.compile(r"\s*(?:[-=]+>|\u2192|=)\s*"), ": "),
    (re.compile(rf"((?:^|[.!?\n])\s*(?:(?:the|his|her|and|its) )?{_FIELDS})\s*\?(?=\s*[^?\s])"), r"\1:"),
    (
        re.compile(
            rf"(?<=[\w).\"'])(?<!\bthe)(?<!\bhis)(?<!\bher)(?<!\bits)(?<!\band)(?<!\bof)(?<!\b"
            rf"a)\s+((?:mean |median |vocal |speaking |speech |overall )?{_ATTRIBUTES}\s*:)"
        ),
        r". \1",
    ),
    (
        re.compile(
            rf"\b({_FIELDS})\s*\?\s*(?=(?:very |pretty |quite |rather |a "
            rf"bit |a little |fairly |really )?(?:{LEVEL_NAMES})\b)"
        ),
        r"\1: ",
    ),
    *NUMBERS,
    (re.compile(r"\s[-\u2013]\s|[\u2014()\[\]]|\.{2,}|\u2026"), " , "),
    (re.compile(r"[-\u2013/]"), " "),
    (re.compile(r"\bcan(?:no|')t\b"), "can not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\b(it|that|there|he|she|what)'s\b"), r"\1 is"),
    (
        re.compile(
            rf"\b({_FIELDS})'s\b(?= (?:not |a |very |pretty |quite |just "
            rf"|really |so |way |kind of )*(?:up|down|fine|okay|alright|{LEVEL_NAMES})\b)"
        ),
        r"\1 is",
    ),
    (re.compile(r"\blet's\b"), "let us"),
    (
        re.compile(
            r",\s*(?:(?:is|does|was|has|do|did|would|can)(?: not)? (?:he|"
            r"she|it|they)|right|no|yeah|huh|eh|innit|you know|know what "
            r"i mean|okay|ok)\s*\?"
        ),
        ".",
    ),
    (re.compile(r"(?<=\w)'s\b"), f" {OWNER}"),
    (re.compile(r"'(?:d|ll|re|ve|m)?(?!\w)"), ""),
    (re.compile(r"\s+"), " "),
)
_FIRST = re.compile(r"(?:^|\s)1[.)]\s")
_ITEM = re.compile(r"(?:^|\s)[1-9][.)]\s")
_PARTS = re.compile(r"(?<=[.!])\s+")
_YES = re.compile(
    r"\W*(?:a(?:nswer)?\s*:\s*)?(?:yes|yep|yeah|definitely|certainly|"
    r"absolutely|very|slightly|somewhat|moderately|clearly|sure|"
    r"indeed|you bet|of course|oh yes|(?:it|he|she) is\b(?! not)|"
    r"i (?:would )?(?:think|say) so)\b"
)
_DEGREE = re.compile(
    r"\b(not|never|hardly|scarcely|nor|nothing) (?:all (?:that|"
    r"so)|that|so|as|too|overly|terribly) (?:very )?(\w+)"
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
_ASKING = words(
    "is are was were does do did can could may might will would "
    "should has have had what which who why how where when"
)
_HEDGES = words("just kinda sorta maybe perhaps guess suppose")
"""Words by which a question that does not ask is only unsure: "the pitch is just ... normal?"."""
_LEVELS = LEVEL_WORDS | FREE.keys()
_CARRIES = _OPINION | {"not", "true", "case"}
"""Words after which "that" begins no clause of its own: what is denied before it is denied after it."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """Holds one sentence as the grammar reads it."""

    tokens: tuple[str, ...]
    """Lower-case words, joined expressions, commas and colons."""
    denied: frozenset[int]
    """Positions of the tokens that are negated, supposed or asked about: no claim rests on them."""
    reversed: frozenset[int] = frozenset()
    """Positions of the level words that mean their opposite: "less loud" is low."""
    negated: frozenset[int] = frozenset()
    """Those of `denied` that are negated, not only supposed."""


def read_sentences(text: str) -> Iterator[Sentence]:
    """Yields the text's sentences, with each quotation replaced by `MASK`."""
    text = QUOTE.sub(f" {MASK} ", text).lower()
    for pattern, replacement in (*_ABBREVIATIONS, *PAIRS):
        text = pattern.sub(replacement, text)
    if _FIRST.search(text):
        text = _ITEM.sub(". ", text)
    text = " ".join(_plain(part) for part in _PARTS.split(text))
    found = [match[0].rstrip() for match in _SENTENCE.finditer(text)]
    previous: frozenset[int] = frozenset()
    for part, following in zip_longest(found, found[1:], fillvalue=""):
        tokens = tuple(_TOKEN.findall(part))
        if not tokens:
            continue
        everything = frozenset(range(len(tokens)))
        negated: frozenset[int] = frozenset()
        if part.endswith("?") and not (tokens[0] not in _ASKING and _HEDGES & {*tokens}):
            denied = frozenset() if _YES.match(following) else everything
        elif tokens[0] in ("or", "nor") and previous:
            end = tokens.index(":") if ":" in tokens else len(tokens)
            denied = negated = frozenset(range(end)) | {i for i, _ in _denied(tokens)}
        else:
            found_denied = list(_denied(tokens))
            denied = frozenset(i for i, _ in found_denied)
            negated = frozenset(i for i, is_negated in found_denied if is_negated)
        yield Sentence(tokens, denied, frozenset(_reversed(tokens)), negated)
        previous = negated


@lru_cache(maxsize=4096)
def _plain(text: str) -> str:
    """Returns a part of the text in the plain words that the grammar knows. A reward reads an answer up to
    the end of each sentence, so parts are read again and again."""
    for pattern, replacement in _SPELLING:
        text = pattern.sub(replacement, text)
    text = read_figures(text)
    for table in (COURSES, COMPARISONS, PLACES, TALK, PHRASES):
        text = " ".join(text.split())
        for pattern, replacement in table:
            text = pattern.sub(replacement, text)
    return _NEITHER.sub(_between, _DEGREE.sub(_plainly, text))


def _plainly(match: re.Match[str]) -> str:
    """Returns "not high" for "not that high" and "not so high": `that` begins no clause there."""
    return f"{match[1]} {match[2]}" if match[2] in LEVEL_WORDS or match[2] in FREE else match[0]


def _reversed(tokens: tuple[str, ...]) -> Iterator[int]:
    """Yields the positions of level words after "less": less loud, less loud and quick."""
    less = False
    for i, token in enumerate(tokens):
        if token == "less":
            less = i == 0 or tokens[i - 1] not in ("no", "not", "or", "neither", "never", "nothing")
        elif less and token in _LEVELS:
            yield i
            less = (
                i + 2 < len(tokens) and tokens[i + 1] in ("and", "or", ",") and tokens[i + 2] in LEVEL_WORDS
            )
        elif not (token in ADVERBS or token in ("and", "or", ",") or token.endswith("ly")):
            less = False


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


def _denied(tokens: tuple[str, ...]) -> Iterator[tuple[int, bool]]:
    """Yields the positions that no claim rests on, and whether they are negated (else supposed)."""
    yield from ((i, False) for i in _generic(tokens))
    negated, supposed = "", False
    for i, token in enumerate(tokens):
        if (
            (token in BREAKS and not (token == "that" and tokens[i - 1] in _CARRIES))
            or token == ":"
            or (token == "," and not _goes_on(tokens, i, negated, supposed))
        ):
            negated, supposed = "", False
        elif token == "and" or (token == "with" and negated == "no"):
            negated = ""
        if negated or supposed:
            yield i, bool(negated) and not supposed
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


def _goes_on(tokens: tuple[str, ...], i: int, negated: str, supposed: bool) -> bool:
    """Returns whether a list goes on after the comma at `i`: not loud, fast, or high; no loud, fast voice."""
    rest = tokens[i + 1 : i + 4]
    if supposed and rest[:1] and rest[0] in LEVEL_WORDS and "and" in rest:
        return True
    if (
        negated in ("no", "without", "lacks", "lacking")
        and tokens[i - 1] in LEVEL_WORDS
        and rest[:1]
        and rest[0] in LEVEL_WORDS
    ):
        return rest[1:2] != () and rest[1] in NOUNS
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
