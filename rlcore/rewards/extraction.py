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

_ASCII = {0xFF01 + i: 0x21 + i for i in range(94)} | {0x2212: "-", 0x2044: "/"}
"""Full-width forms, the minus sign and the fraction slash, as a keyboard has them."""
_LATEX_SPACES = re.compile(r"\\[,!;: ]")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathit)\s*\{([^{}]*)\}")
_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{{1,3}}(?![0-9]))?"
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([-+]?[0-9.,]+)\}\s*\{([0-9.,]+)\}")
_POWER = re.compile(r" ?(?:\\times|\\cdot|\u00d7|\*) ?10 ?\^ ?\{?([-+]?[0-9]{1,3})(?![0-9])\}?")
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>(?<![0-9)\]}}] )(?<![)\]}}])[-+])?(?:(?P<whole>[0-9]+) +(?=[0-9]+/[0-9]))?"
    rf"(?P<number>{_DECIMAL})(?:\s?/\s?(?P<divisor>{_DECIMAL}))?"
)


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

    Thousands may be set apart by commas; fractions (`3/4`, `1 1/2`, `\frac{3}{4}`) and powers of ten
    (`2e5`, `2 \times 10^5`) are read; currencies, units and the percent sign are passed over.
    """
    part = final_part(text).translate(_ASCII)
    part = _LATEX_SPACES.sub("", part.replace("{,}", ","))
    part = re.sub(r"\\?[$€£¥]", "", _FRACTION.sub(r"\1/\2", part))
    found = list(_NUMBER.finditer(_POWER.sub(r"e\1", part)))
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

    Read are, in this order: the letter or the text of a choice alone; "answer is B" and "answer: B", the last
    one; "option B" where all agree; a letter in front ("B. because", "(B) happy"); letters in brackets where
    all agree; a letter at the end.

    Args:
        choices: the choices' texts, `A` being the first. None: `LETTERS` without texts.
    """
    letters = LETTERS if choices is None else ascii_uppercase[: len(choices)]
    part = " ".join(re.sub(r"[*_`$]+", "", _WRAPPED.sub(r"\1", final_part(text))).split())
    if alone := re.fullmatch(rf"\W*([{letters}{letters.lower()}])\W*", part):
        return alone[1].upper()
    for letter, choice in zip(letters, choices or (), strict=False):
        if plain_words(part) == plain_words(choice) or part.casefold() == choice.strip().casefold():
            return letter
    one = rf"\(?(?<![\w'])([{letters}])(?![\w'])\)?"
    small = rf"\(?(?<![\w'])([{letters.lower()}])(?=\s*(?:[).:,;!]|$))"
    for keyword, only_last in (("answer", True), ("(?:option|choice)", False)):
        said = rf"(?i:\b{keyword}\b(?:\s+(?:is|would\s+be|should\s+be|must\s+be))?\s*[:=]?\s*)"
        found = list(re.finditer(rf"{said}(?:(?i:option|choice)\s+)?(?:{one}|{small})", part))
        named = [(m[1] or m[2]).upper() for m in found]
        if named:
            more = re.match(rf"\s?(?:or|and|/|,|&)\s?{one}", part[found[-1].end() :])
            return None if more or not (only_last or len(set(named)) == 1) else named[-1]
    marks = rf"\(([{letters}])\)|(?<![\w'])([{letters}])\s*[.):\]](?!\w)"
    marked = {m[1] or m[2] for m in re.finditer(marks, part)}
    first = re.match(rf"\W*(?:{marks})", part)
    if marked:
        return marked.pop() if len(marked) == 1 and (first or f"({next(iter(marked))})" in part) else None
    last = re.search(rf"(?<!\bnot )(?<![\w'])([{letters}])\W*\Z", part)
    hedged = re.search(rf"{one}(?:[\s,/&]|or\b|and\b)*{one}\W*\Z", part)
    return last[1] if last and not hedged else None


def choice_texts(choices: object) -> tuple[list[str], list[str]]:
    """Returns the texts of a question's choices, and the labels by which its right answer may be named.

    Args:
        choices: a list of texts; a mapping of label to text; or `{text: [...], label: [...]}`, as some data
            sets on the hub have them.

    Raises:
        DataError: it has another form, fewer than 2 choices, or more than there are letters.
    """
    labels: Sequence[object] = ascii_uppercase
    texts: object = choices
    if isinstance(choices, Mapping):
        if isinstance(choices.get("text"), list | tuple):
            texts, labels = choices["text"], choices.get("label") or ascii_uppercase
        else:
            texts, labels = list(choices.values()), list(choices)
    if not isinstance(texts, list | tuple) or not all(isinstance(t, str | int | float) for t in texts):
        raise DataError(f"choices are {str(choices)[:80]!r}; they must be a list of texts")
    if not 2 <= len(texts) <= len(ascii_uppercase) or len(labels) < len(texts):
        raise DataError(f"{len(texts)} choices; 2 to {len(ascii_uppercase)} are allowed, each with its label")
    return [str(text).strip() for text in texts], [str(label) for label in labels[: len(texts)]]


def right_letter(answer: object, texts: Sequence[str], labels: Sequence[str] = ascii_uppercase) -> str:
    """Returns the capital letter of a question's right answer.

    Args:
        answer: the right choice's text, its label, its letter, or as a whole number its place, from 0.

    Raises:
        DataError: it is none of the choices, or two choices have this text.
    """
    if isinstance(answer, int) and not isinstance(answer, bool):
        if str(answer) in texts:
            return ascii_uppercase[list(texts).index(str(answer))]
        if 0 <= answer < len(texts):
            return ascii_uppercase[answer]
    said = str(answer).strip()
    for names in (list(texts), list(labels[: len(texts)]), list(ascii_uppercase[: len(texts)])):
        if names.count(said) == 1:
            return ascii_uppercase[names.index(said)]
    folded = [text.casefold() for text in texts]
    if folded.count(said.casefold()) == 1:
        return ascii_uppercase[folded.index(said.casefold())]
    raise DataError(
        f"the answer {answer!r} is not one of the {len(texts)} choices: give its text, its letter, or as a "
        "whole number its place, from 0"
    )
