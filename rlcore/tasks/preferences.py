"""The ready task for a file of preferences: pairs of answers to one question, or answers with a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlcore.errors import DataError
from rlcore.tasks.columns import Question
from rlcore.tasks.rows import Rows
from rlcore.types import Prompt

_YES_NO = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A judged answer or pair is what a row of preferences says of one prompt."""

    answers: tuple[str, ...]
    """The chosen and the rejected answer, or the one that is labelled."""
    desirable: bool | None = None
    """Label of a labelled answer; None for pairs."""


class Preferences(Rows):
    """The task asks what the rows of a file say, as `rlcore.tasks.Rows` with the same arguments, and knows
    which answers are preferred.

    A row has a question, recordings or none, and either `chosen` and `rejected`, or `answer` and `label`
    (true: desirable). An answer is a text, or messages of which the last one is the assistant's.
    """

    def _prompt(self, question: Question) -> Prompt:
        for text in judged(question.reference).answers:
            if found := [token for token in self._media.reserved if token in text]:
                raise DataError(f"an answer holds {found[0]!r}, which the model reads as media")
        return super()._prompt(question)


def judged(row: Mapping[str, Any]) -> Judged:
    """Returns what a row's columns, the reference of its prompt, say of answers.

    Raises:
        DataError: they say nothing, or hold what an answer or a label cannot be.
    """
    if "chosen" in row or "rejected" in row:
        chosen, rejected = (_answer(row, name) for name in ("chosen", "rejected"))
        if chosen == rejected:
            raise DataError(f"chosen and rejected are the same: {chosen[:80]!r}")
        return Judged(answers=(chosen, rejected))
    if "label" not in row:
        raise DataError(
            f"it has neither chosen and rejected nor answer and label; its other columns are {sorted(row)}"
        )
    desirable = _YES_NO.get(str(row["label"]).strip().lower())
    if desirable is None:
        raise DataError(f"label is {row['label']!r}; it must be true (desirable) or false")
    return Judged(answers=(_answer(row, "answer"),), desirable=desirable)


def _answer(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        raise DataError(f"no column {name!r}, or it is empty; the row has {sorted(row)}")
    last = value[-1] if isinstance(value, list) and value else None
    if isinstance(last, Mapping) and last.get("role") == "assistant":
        value = last.get("content")
    if not isinstance(value, str) or not value:
        raise DataError(
            f"{name} is {str(value)[:80]!r}; it must be a text, or messages that end with the assistant's"
        )
    return value
