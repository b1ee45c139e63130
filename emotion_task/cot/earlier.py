"""Keeps what earlier runs left in a folder of traces, for the utterances that a run does not decide anew."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from emotion_task.cot.ledger import Ledger, Row
from emotion_task.records import Utterance, read_manifest
from rlcore.records.files import read_rows

_OWN_THINKING = re.compile(r"\s*<think>.*?</think>\s*(?=<think>)", re.DOTALL)
"""Thinking that a reasoning model writes before the trace."""


def trace_of(answer: str) -> str:
    """Returns the trace in an answer, without what the model thought by itself before it."""
    own = _OWN_THINKING.match(answer)
    return (answer[own.end() :] if own else answer).strip()


@dataclass(frozen=True, slots=True)
class Earlier:
    """Holds what the folder's files say of some utterances."""

    traces: dict[str, Utterance]
    """Utterances whose trace passed, by id."""
    rejected: list[Row]
    """Lines of rejected.jsonl."""

    @classmethod
    def read(cls, folder: Path, ledger: Ledger) -> Earlier:
        """Reads the folder. A trace that no answer in the ledger holds (a template's) is not of a run's.

        Raises:
            DataError: a line of the folder's files is not what it should be.
        """
        manifest = folder / "manifest.jsonl"
        answered = {(row["id"], trace_of(row["text"])) for row in ledger.answers.values()}
        utterances = read_manifest(manifest) if manifest.is_file() else []
        return cls(
            {u.id: u for u in utterances if (u.id, u.trace) in answered},
            list(read_rows(folder / "rejected.jsonl")),
        )

    def without(self, ids: Container[str]) -> Earlier:
        """Returns what the folder says of all other utterances."""
        return Earlier(
            {id: utterance for id, utterance in self.traces.items() if id not in ids},
            [row for row in self.rejected if row["id"] not in ids],
        )

    def left_out(self) -> Counter[str]:
        """Counts the utterances without a trace by the kind of their last attempt's first failed check."""
        last = {row["id"]: row["reasons"][0].split(":")[0] for row in self.rejected}
        return Counter(kind for id, kind in last.items() if id not in self.traces)
