"""Measures how well the claim finder does on labelled passages (`emotion claims FILE`).

A line of the file is `{"text": ..., "claims": [[type, value], ...], "split": ...}`, and where it matters
`"denied": [[type, value], ...]` (levels that the text says the voice has not) and `"style": ...`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

from emotion_task.claims.check import are_opposites
from emotion_task.claims.finder import CLAIM_TYPES, read_claims
from rlcore.errors import DataError
from rlcore.records.files import numbered_rows


class _Marks(TypedDict, total=False):
    denied: list[list[str]]
    """The levels that the text denies, each as [type, value]."""
    style: str


class Passage(_Marks):
    """Holds one labelled passage, a line of the file."""

    text: str
    claims: list[list[str]]
    """The claims that the text makes, each as [type, value]."""
    split: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Counts the labelled and the found claims of one type, or of all."""

    num_labelled: int = 0
    num_found: int = 0
    num_both: int = 0
    """Claims found with the labelled value."""
    num_opposed: int = 0
    """Claims found with the wrong sign: the opposite of what the text says, or what it denies."""

    def __add__(self, other: Found) -> Found:
        return Found(
            num_labelled=self.num_labelled + other.num_labelled,
            num_found=self.num_found + other.num_found,
            num_both=self.num_both + other.num_both,
            num_opposed=self.num_opposed + other.num_opposed,
        )

    @property
    def precision(self) -> float:
        return self.num_both / self.num_found if self.num_found else 1.0

    @property
    def recall(self) -> float:
        return self.num_both / self.num_labelled if self.num_labelled else 1.0

    @property
    def wrong_sign(self) -> float:
        return self.num_opposed / self.num_found if self.num_found else 0.0


def read_labelled(path: str | Path) -> list[Passage]:
    """Reads a JSONL file of labelled passages and returns its rows.

    Raises:
        DataError: A line is no such row, or has a claim type that does not exist; names file and line.
    """
    rows = []
    for number, row in numbered_rows(path, "a labelled passage"):
        try:
            unknown = {name for name, _ in (*row["claims"], *row.get("denied", ()))} - set(CLAIM_TYPES)
            if unknown or not row["text"] or not row["split"]:
                raise ValueError(f"claim types {sorted(unknown)}; allowed are {list(CLAIM_TYPES)}")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}:{number}: not a labelled passage: {error!r}") from error
        rows.append(cast(Passage, row))
    return rows


def score_finder(rows: Iterable[Passage]) -> dict[str, Found]:
    """Returns the counts of each claim type, and of `all`, over the passages.

    A claim counts once per passage, and as found in both where type and value are the labelled ones."""
    scores = dict.fromkeys((*CLAIM_TYPES, "all"), Found())
    for row in rows:
        labelled = {(name, value) for name, value in row["claims"]}
        found = {(claim.type, claim.value) for claim in read_claims(row["text"])}
        opposed = {claim for claim in found if _is_opposed(claim, labelled, row)}
        for name in CLAIM_TYPES:
            of_type = Found(
                num_labelled=sum(claim[0] == name for claim in labelled),
                num_found=sum(claim[0] == name for claim in found),
                num_both=sum(claim[0] == name for claim in labelled & found),
                num_opposed=sum(claim[0] == name for claim in opposed),
            )
            scores[name] += of_type
            scores["all"] += of_type
    return scores


def _is_opposed(claim: tuple[str, str], labelled: set[tuple[str, str]], row: Passage) -> bool:
    name, value = claim
    return list(claim) in row.get("denied", []) or any(
        are_opposites(value, said) for of_type, said in labelled if of_type == name
    )
