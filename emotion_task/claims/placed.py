"""Says where in a reasoning each claim stands, and whether it is right, for whoever shows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from emotion_task.claims.check import Reference, check_claims
from emotion_task.claims.finder import CONTRADICTORY, Claim, read_claims

RIGHT, WRONG, UNMEASURED = "right", "wrong", "unmeasured"

_SENTENCE = re.compile(r"[^\s.!?\n](?:[^.!?\n]|[.!?](?=\w))*[.!?]*")
_WORD = re.compile(r"\S+")
Span: TypeAlias = tuple[int, int]
"""First character of a passage, and the one behind its last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedClaim:
    """Holds a claim, its place in the reasoning and its verdict."""

    type: str
    """One of `emotion_task.claims.finder.CLAIM_TYPES`."""
    value: str
    """The claimed value, as in `Claim`."""
    verdict: str
    """`right`, `wrong`, or `unmeasured` where no fact is known that the claim could be held against."""
    start: int
    """Index of the claim's first character in the reasoning."""
    end: int
    """Index behind the claim's last character."""


def placed_claims(reasoning: str, reference: Reference) -> list[PlacedClaim]:
    """Returns the claims of the reasoning with their verdicts, in the order of their places.

    A claim stands in the fewest words of one sentence that make it; in each sentence, where several do. One
    that only sentences together make (`Wait, it is low.`) stands in the last of them. Two values of one
    attribute are one claim, `contradictory`, that stands where either is stated.

    Args:
        reference: a prompt's reference (`emotion_task.facts.reference_of`).
    """
    sentences = [match.span() for match in _SENTENCE.finditer(reasoning)]
    placed = [
        PlacedClaim(type=claim.type, value=claim.value, verdict=verdict, start=start, end=end)
        for claim in read_claims(reasoning)
        for verdict in [_verdict(claim, reference)]
        for start, end in _places(reasoning, sentences, claim)
    ]
    return sorted(placed, key=lambda each: (each.start, each.end))


def _places(reasoning: str, sentences: Sequence[Span], claim: Claim) -> list[Span]:
    if claim.value == CONTRADICTORY:
        stated = [(span, other) for span in sentences for other in read_claims(reasoning[slice(*span)])]
        found = [_narrowed(reasoning, span, other) for span, other in stated if other.type == claim.type]
    else:
        found = [_narrowed(reasoning, s, claim) for s in sentences if _makes(reasoning, s, claim)]
    return found or [_of_several(reasoning, sentences, claim)]


def _verdict(claim: Claim, reference: Reference) -> str:
    tally = check_claims([claim], reference)[claim.type]
    if not tally.num_checked:
        return UNMEASURED
    return RIGHT if tally.num_right == tally.num_checked else WRONG


def _makes(reasoning: str, span: Span, claim: Claim) -> bool:
    return claim in read_claims(reasoning[slice(*span)])


def _narrowed(reasoning: str, span: Span, claim: Claim) -> Span:
    """Returns the place of the words that still make the claim when words are taken away at the end, then at
    the beginning."""
    words = [(span[0] + m.start(), span[0] + m.end()) for m in _WORD.finditer(reasoning[slice(*span)])]
    while len(words) > 1 and _makes(reasoning, (words[0][0], words[-2][1]), claim):
        words.pop()
    while len(words) > 1 and _makes(reasoning, (words[1][0], words[-1][1]), claim):
        words.pop(0)
    return _without_stop(reasoning, words[0][0], words[-1][1])


def _of_several(reasoning: str, sentences: Sequence[Span], claim: Claim) -> Span:
    """Returns the last sentence of the fewest that make the claim together; all, where none do."""
    for number in range(2, len(sentences) + 1):
        for first, last in zip(sentences, sentences[number - 1 :], strict=False):
            if _makes(reasoning, (first[0], last[1]), claim):
                return _without_stop(reasoning, *last)
    return 0, len(reasoning)


def _without_stop(reasoning: str, start: int, end: int) -> Span:
    return start, start + len(reasoning[start:end].rstrip(".,;:!?"))
