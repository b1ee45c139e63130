r"""Finds what an answer states: its final part, a number, the letter of a choice.

An answer that names several choices, or none, states nothing: a reward pays for no hedging. Every search is
linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite
from string import ascii_uppercase
from unicodedata import normalize

from rlcore.errors import DataError

LETTERS = ascii_uppercase[:10]
"""Letters of choices whose number is not known."""

_THOUGHT = re.compile(r"<think>|</think>")
_TAGGED = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)
_BOXES = re.compile(r"\\f?boxed\s*\{")
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
"""GSM8K's mark of the final answer (Cobbe et al. 2021)."""

_DASHES = "\u2010\u2011\u2012\u2013\u2212"
_SPACES = "\u00a0\u2009\u202f"
_ASCII: dict[int, int | str] = {
    **{0xFF01 + i: 0x21 + i for i in range(94)},
    **dict.fromkeys(map(ord, _DASHES), "-"),
    **dict.fromkeys(map(ord, _SPACES), " "),
    0x2044: "/",
}
"""Full-width forms, hyphens, the minus sign, spaces within numbers and the fraction slash, as a keyboard has
them."""
_LATEX_SPACES = re.compile(r"\\[,!;: ]")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathit)\s*\{([^{}]*)\}")
_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{{1,3}}(?![0-9]))?"
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([-+]?[0-9.,]+)\}\s*\{([0-9.,]+)\}")
_THOUSANDS = re.compile(r"(?<![0-9] )(?<![\w.,/^])[1-9][0-9]{0,2}(?: [0-9]{3})+(?![\w/^]|[.,][0-9]{3})")
"""A number whose thousands are set apart by spaces, as the SI does."""
_UNIT_POWER = re.compile(r"(?<=[A-Za-z)}]) ?\^ ?\{?[-+]?[0-9]{1,3}(?![0-9])\}?")
"""The exponent of a unit, such as that of cm^2."""
_TEN = re.compile(r"(?<![\w.,^])10 ?\^ ?\{?([-+]?[0-9]{1,3})(?![0-9])\}?")
_POWER = re.compile(r" ?(?:\\times|\\cdot|\u00d7|\*) ?10 ?\^ ?\{?([-+]?[0-9]{1,3})(?![0-9])\}?")
_NUMBER = re.compile(
    rf"(?<!\w)(?<![0-9]\.)(?<!\.(?=\.))(?P<sign>(?<![0-9)\]}}] )(?<![)\]}}])[-+])?"
    rf"(?:(?P<whole>[0-9]+) +(?=[0-9]+/[0-9]))?(?P<number>{_DECIMAL})(?:\s?/\s?(?P<divisor>{_DECIMAL}))?"
)

_QUOTED = re.compile(r"[\['\"{\u2018\u201c]([A-Za-z])[\]'\"}\u2019\u201d]")
"""A letter in quotation marks or in brackets other than round ones."""
_SAID = r"(?i:\b{}\b(?:\s+(?:is|would\s+be|should\s+be|must\s+be))?\s*[:=]?\s*)"
"""What leads to an answer, by its keyword."""


def final_part(text: str) -> str:
    r"""Returns the part of an answer that states it: behind its thoughts (`</think>`), and there inside the
    last `<answer>` tags, the last `\boxed{}`, or behind the last `####`, as far as they are there.

    Empty where a thought has no end.
    """
    thoughts = list(_THOUGHT.finditer(text))
    if thoughts:
        if thoughts[-1][0] == "<think>":
            return ""
        text = text[thoughts[-1].end() :]
    if tagged := _TAGGED.findall(text):
        text = tagged[-1]
    if (boxed := _last_boxed(text)) is not None:
        return boxed
    hashed = _HASHES.findall(text)
    return hashed[-1] if hashed else text


def _last_boxed(text: str) -> str | None:
    r"""Returns what stands inside the last `\boxed{}` whose brackets close."""
    for opening in reversed(list(_BOXES.finditer(text))[-8:]):
        depth = 1
        for at in range(opening.end(), len(text)):
            depth += (text[at] == "{") - (text[at] == "}")
            if depth == 0:
                return text[opening.end() : at]
    return None


def stated_number(text: str) -> float | None:
    r"""Returns the last number of an answer's final part, None where there is none.

    Thousands may be set apart by commas or spaces; fractions (`3/4`, `1 1/2`, `\frac{3}{4}`) and powers of
    ten (`2e5`, `2 \times 10^5`, `10^5`) are read; currencies, units, their exponents and the percent sign are
    passed over.
    """
    part = final_part(text).translate(_ASCII)
    part = _LATEX_SPACES.sub("", part.replace("{,}", ","))
    part = re.sub(r"\\?[$€£¥]", "", _FRACTION.sub(r"\1/\2", part))
    part = _THOUSANDS.sub(lambda number: number[0].replace(" ", ""), part)
    part = _UNIT_POWER.sub("", _TEN.sub(r"1e\1", _POWER.sub(r"e\1", part)))
    found = list(_NUMBER.finditer(part))
    return _value(found[-1]) if found else None


def _value(found: re.Match[str]) -> float | None:
    number, divisor = (float((found[name] or "1").replace(",", "")) for name in ("number", "divisor"))
    if divisor == 0:
        return None
    value = float(found["whole"] or 0) + number / divisor
    value = -value if found["sign"] == "-" else value
    return value if isfinite(value) else None


def plain_words(text: str) -> str:
    """Returns a text's words, for comparison: without case, punctuation, English articles and doubled white
    space (the normalisation of SQuAD, Rajpurkar et al. 2016, section 6.1)."""
    folded = normalize("NFC", text).casefold()
    kept = "".join(c for c in folded if c.isalnum() or c.isspace() or c in "+-%°" or ord(c) >= 0x300)
    return " ".join(word for word in kept.split() if word not in ("a", "an", "the")) or folded.strip()


def stated_letter(text: str, choices: Sequence[str] | None = None) -> str | None:
    """Returns the capital letter of the choice that an answer states, None where it states none or several.

    Read are, in this order: the letter or the text of a choice alone, or behind the last "answer is" or
    "answer:"; such a letter with more behind it; "option B" where all agree; a letter in front ("B. because",
    "(B) happy"); letters in brackets where all agree; a letter at the end.

    Args:
        choices: the choices' texts, `A` being the first. None: `LETTERS` without texts.
    """
    letters = LETTERS if choices is None else ascii_uppercase[: len(choices)]
    part = " ".join(re.sub(r"[*_`$]+", "", _WRAPPED.sub(r"\1", final_part(text))).split())
    part = _QUOTED.sub(r"(\1)", part)
    ends = [said.end() for said in re.finditer(_SAID.format("answer"), part)]
    for stated in (part, *(part[end:] for end in ends[-1:])):
        if alone := re.fullmatch(rf"\W*([{letters}{letters.lower()}])\W*", stated):
            return alone[1].upper()
        for letter, choice in zip(letters, choices or (), strict=False):
            if plain_words(stated) == plain_words(choice) or stated.casefold() == choice.strip().casefold():
                return letter
    one = rf"\(?(?<![\w'])(?!I [a-z])([{letters}])(?![\w'])\)?"  # "I think" names no choice
    small = rf"\(?(?<![\w'])([{letters.lower()}])(?=\s*(?:[).:,;!]|$))"
    for keyword, only_last in (("answer", True), ("(?:option|choice)", False)):
        said = _SAID.format(keyword)
        found = list(re.finditer(rf"{said}(?:(?i:option|choice)\s+)?(?:{one}|{small})", part))
        named = [(m[1] or m[2]).upper() for m in found]
        if named:
            rest = part[found[-1].end() :]
            more = re.match(rf"\s?(?:or|and|/|,|&)\s?{one}", rest) or _is_of_another(rest, named[-1], choices)
            return None if more or not (only_last or len(set(named)) == 1) else named[-1]
    marks = rf"\(([{letters}])\)|(?<![\w'])([{letters}])\s*[.):\]](?!\w)"
    marked = {m[1] or m[2] for m in re.finditer(marks, part)}
    first = re.match(rf"\W*(?:{marks})", part)
    if marked:
        return marked.pop() if len(marked) == 1 and (first or f"({next(iter(marked))})" in part) else None
    last = re.search(rf"(?<!\bnot )(?<!n['\u2019]t )(?<![\w'])([{letters}])\W*\Z", part)
    hedged = re.search(rf"{one}(?:[\s,/&]|n?or\b|and\b)*{one}\W*\Z", part)
    return last[1] if last and not hedged else None


def _is_of_another(rest: str, letter: str, choices: Sequence[str] | None) -> bool:
    """Tells whether a letter is followed by the text of another choice: in "Answer: A woman speaks" it is an
    article."""
    followed = [f"{plain_words(rest)} ".startswith(f"{plain_words(choice)} ") for choice in choices or ()]
    return any(followed) and not followed[ascii_uppercase.index(letter)]


def choice_texts(choices: object) -> tuple[list[str], list[str]]:
    """Returns the texts of a question's choices, and the labels by which its right answer may be named.

    Args:
        choices: a list of texts; a mapping of label to text; or `{text: [...], label: [...]}`, as some data
            sets on the hub have them.

    Raises:
        DataError: it has another form, fewer than 2 choices, or more than there are letters.
    """
    labels: object = ascii_uppercase
    texts: object = choices
    if isinstance(choices, Mapping):
        if isinstance(choices.get("text"), list | tuple):
            texts, labels = choices["text"], choices.get("label") or ascii_uppercase
        else:
            # Parquet gives every row all labels.
            told = {label: text for label, text in choices.items() if text is not None}
            texts, labels = list(told.values()), list(told)
    if not isinstance(texts, list | tuple) or not all(isinstance(t, str | int | float) for t in texts):
        raise DataError(f"choices are {str(choices)[:80]!r}; they must be a list of texts")
    if not isinstance(labels, Sequence):
        raise DataError(f"the labels of choices are {str(labels)[:80]!r}; they must be a list")
    if not 2 <= len(texts) <= len(ascii_uppercase) or len(labels) < len(texts):
        raise DataError(f"{len(texts)} choices; 2 to {len(ascii_uppercase)} are allowed, each with its label")
    return [str(text).strip() for text in texts], [str(label) for label in labels[: len(texts)]]


def right_letter(answer: object, texts: Sequence[str], labels: Sequence[str] = ascii_uppercase) -> str:
    """Returns the capital letter of a question's right answer.

    Args:
        answer: the right choice's label, its text, its letter, or as a whole number its place, from 0. Labels
            of the question's own come first.

    Raises:
        DataError: it is none of the choices, two choices have this text, or it is the text of one choice and
            the letter of another.
    """
    said, letters = str(answer).strip(), list(ascii_uppercase[: len(texts)])
    own = list(labels[: len(texts)])
    is_number = isinstance(answer, int) and not isinstance(answer, bool)
    places = letters if not is_number else list(map(str, range(len(texts))))
    if own == letters and said in letters and texts.count(said) == 1 and texts[letters.index(said)] != said:
        raise DataError(
            f"the answer {answer!r} is the text of one choice and the letter of another: give its place from "
            "0, as a whole number"
        )
    for names in ([] if own == letters else own, list(texts), places):
        if names.count(said) == 1:
            return ascii_uppercase[names.index(said)]
    folded = [text.casefold() for text in texts]
    if folded.count(said.casefold()) == 1:
        return ascii_uppercase[folded.index(said.casefold())]
    raise DataError(
        f"the answer {answer!r} is not one of the {len(texts)} choices: give its text, its letter, or as a "
        "whole number its place, from 0"
    )
