"""Claims with their places in an answer, and whether each is what was measured.

The finder reads whole reasoning and tells no places. A claim's place is the shortest row of clauses, within
one sentence, that makes the claim when it is read alone. A claim that only several sentences together make
has no place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from emotion_task.claims.check import Reference, check_claims
from emotion_task.claims.finder import CONTRADICTORY, Claim, read_claims
from emotion_task.parsing import parse_response

RIGHT, WRONG, UNMEASURED = "right", "wrong", "unmeasured"
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_CONJUNCTION = re.compile(r"(?:and|but|with|while|though|although|yet|as|because|so)\s+", re.IGNORECASE)
_CLAUSE = re.compile(rf"[,;:]|\s(?={_CONJUNCTION.pattern})", re.IGNORECASE)
_MOST_CLAUSES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedClaim:
    """A claim with its verdict, and its places in the answer."""

    type: str
    value: str
    verdict: str
    """`right`, `wrong`, or `unmeasured`: what it speaks of was not measured."""
    places: tuple[tuple[int, int], ...]
    """Start and end of each place, as positions in the answer."""


def placed_claims(answer: str, reference: Reference) -> list[PlacedClaim]:
    """Returns the claims of an answer's reasoning.

    Args:
        answer: text with or without tags; with them, only the reasoning is read.
        reference: the prompt's (`emotion_task.facts.reference_of`).
    """
    parsed = parse_response(answer)
    reasoning = parsed.think if parsed else answer
    start = answer.index(reasoning)
    return [
        PlacedClaim(
            type=claim.type,
            value=claim.value,
            verdict=_verdict(claim, reference),
            places=tuple((start + a, start + b) for a, b in _places(reasoning, claim)),
        )
        for claim in read_claims(reasoning)
    ]


def _verdict(claim: Claim, reference: Reference) -> str:
    tally = check_claims([claim], reference)[claim.type]
    if not tally.num_checked:
        return UNMEASURED
    return WRONG if tally.num_wrong else RIGHT


def _places(reasoning: str, claim: Claim) -> Iterator[tuple[int, int]]:
    for match in _SENTENCE.finditer(reasoning):
        clauses = _clauses(match[0])
        for size in range(1, min(len(clauses), _MOST_CLAUSES) + 1):
            found = [
                (match.start() + row[0][0] + _joined(match[0][row[0][0] :]), match.start() + row[-1][1])
                for row in (clauses[i : i + size] for i in range(len(clauses) - size + 1))
                if _makes(match[0][row[0][0] : row[-1][1]], claim)
            ]
            if found:
                yield from found
                break


def _joined(clause: str) -> int:
    """Returns the length of the conjunction that a clause begins with: a mark does not cover it."""
    found = _CONJUNCTION.match(clause)
    return found.end() if found else 0


def _clauses(sentence: str) -> Sequence[tuple[int, int]]:
    """Returns start and end of each clause of a sentence, without the white space around it."""
    cuts = [0, *(match.end() for match in _CLAUSE.finditer(sentence)), len(sentence)]
    found = []
    for start, end in pairwise(cuts):
        text = sentence[start:end]
        if text.strip(" ,;:."):
            found.append((start + len(text) - len(text.lstrip()), start + len(text.rstrip(" ,;:.!?"))))
    return found


def _makes(text: str, claim: Claim) -> bool:
    if claim.value == CONTRADICTORY:
        return any(each.type == claim.type for each in _read(text))
    return claim in _read(text)


@lru_cache(maxsize=1 << 16)
def _read(text: str) -> tuple[Claim, ...]:
    return read_claims(text)
