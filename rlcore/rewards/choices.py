"""Reads which of a question's choices a completion names, for benchmarks.

    completion -> final part -> a letter or a choice's text (`stated_letter`) -> else the words of one choice

The letter and the text are read as rewards read them (`rlcore.rewards.extraction`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from unicodedata import normalize

from rlcore.rewards.extraction import final_part, stated_letter


def read_choice(text: str, choices: Sequence[str]) -> int | None:
    """Returns the index of the choice that `text` names, None where it names none, or several.

    Where neither a letter nor the text of a choice is stated, the rule of MMAU's evaluation decides (Sakshi
    et al. 2024, arXiv 2410.19168), which MMAR takes over: the answer has all words of a choice, and no word
    that only other choices have. Where several choices fit, the text names none.
    """
    if (letter := stated_letter(text, choices)) is not None:
        return ascii_uppercase.index(letter)
    said = _words(final_part(text))
    named = [index for index in range(len(choices)) if _are_of(said, choices, index)]
    return named[0] if len(named) == 1 else None


def _are_of(said: set[str], choices: Sequence[str], index: int) -> bool:
    words = _words(choices[index])
    foreign = set().union(*(_words(choice) for choice in choices)) - words
    return bool(words) and words <= said and not said & foreign


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", normalize("NFC", text).casefold()))
