"""Reads which of a question's choices a text names: the one way to read answers to multiple choice.

    text -> the part that answers (`answer_part`) -> the choice that it names (`read_choice`)

Pure functions of texts, for rewards and for benchmarks.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from unicodedata import normalize

LETTERS = string.ascii_uppercase
"""Names of the choices, in their order."""

_ANSWER = re.compile(r"<answer>(?P<answer>.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_END_OF_THOUGHT = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_THOUGHT = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_LEAD = re.compile(
    r"(?:(?:so|therefore|thus|hence)[,:]?\s+)?(?:(?:the|my)\s+)?(?:(?:correct|best|right|final|most\s+suitable)\s+)*"
    r"(?:answer|option|choice)(?:\s+(?:is|would\s+be))?\s*[:=]?\s*",
    re.IGNORECASE,
)
"""Words that lead to an answer: `The correct answer is`, `Option`, `Answer:`."""
_MARKED = re.compile(r"[*_\s]*(?:\((?P<inside>[A-Za-z])\)|(?P<before>[A-Za-z])[*_]*[.):])(?![A-Za-z]\.)")
"""A letter that is marked as one: `(B)`, `B.`, `b)`, `**B:**`; not that of `A.M.`, nor the article `A`."""
_MARKUP = " \t\r\n*_`\"'()[]{}.,:;!?"


def answer_part(text: str) -> str | None:
    """Returns the part of a completion that answers: what the last `<answer>` holds, else what follows the
    reasoning, else the whole text. None where the reasoning has no end: it was cut, and answers nothing."""
    if answers := _ANSWER.findall(text):
        return str(answers[-1]).strip()
    thought, *rest = _END_OF_THOUGHT.split(text)
    if rest:
        return rest[-1].strip()
    return None if _THOUGHT.search(thought) else text.strip()


def read_choice(text: str, choices: Sequence[str]) -> int | None:
    """Returns the index of the choice that `text` names, None where it names none, or several.

    A text names a choice in one of three ways, tried in this order:

    1. It is the choice, whatever its case, punctuation and Unicode form.
    2. It begins with the choice's letter, marked as one (`B`, `(b)`, `B. rain`, `The answer is B`). A letter
       before the words of another choice names none.
    3. It has all words of the choice, and no word that only other choices have: the rule of MMAU's
       evaluation (Sakshi et al. 2024, arXiv 2410.19168), which MMAR takes over. Where several choices fit,
       such as those of the same words in another order, the text names none.
    """
    same = [i for i, choice in enumerate(choices) if _bare(choice) == _bare(text)]
    lead = _LEAD.match(text.strip())
    said = text.strip()[lead.end() :] if lead else text.strip()
    if lead and not same:
        same = [i for i, choice in enumerate(choices) if _bare(choice) == _bare(said)]
    by_letter, rest = _letter(said, len(choices))
    if same:
        # A choice may itself be a letter, such as a note: then its text and its name must agree.
        is_told_twice = by_letter is not None and by_letter not in same
        return same[0] if len(same) == 1 and not is_told_twice else None
    if by_letter is not None:
        others = [i for i, choice in enumerate(choices) if i != by_letter and _bare(choice) == _bare(rest)]
        return by_letter if not others else None
    named = [i for i in range(len(choices)) if _has_words_of(text, choices, i)]
    return named[0] if len(named) == 1 else None


def _letter(said: str, num_choices: int) -> tuple[int | None, str]:
    """Returns the index that a marked letter at the text's beginning names, and what follows it."""
    if len(bare := said.strip(_MARKUP)) == 1:
        letter, rest = bare, ""
    elif match := _MARKED.match(said):
        letter, rest = match["inside"] or match["before"], said[match.end() :]
    else:
        return None, said
    index = LETTERS.find(letter.upper())
    return (index, rest) if 0 <= index < num_choices else (None, said)


def _has_words_of(text: str, choices: Sequence[str], index: int) -> bool:
    said, words = _words(text), _words(choices[index])
    foreign = set().union(*(_words(choice) for choice in choices)) - words
    return bool(words) and words <= said and not said & foreign


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", _folded(text)))


def _bare(text: str) -> str:
    return " ".join(_folded(text).split()).strip(_MARKUP)


def _folded(text: str) -> str:
    return normalize("NFC", text).casefold()
