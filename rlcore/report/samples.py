"""Rows of samples.jsonl by number: which there are, which of them a page shows, and one of them whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from rlcore.records.files import JsonObject
from rlcore.records.tracking import SAMPLES

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry says where a row lies, and what it is of."""

    offset: int
    """Byte at which the row begins."""
    step: int
    split: str
    prompt: str


class SampleFile:
    """The file samples.jsonl of a run, which may grow while it is read."""

    def __init__(self, run_dir: Path):
        self.path = run_dir / SAMPLES
        self.entries: list[Entry] = []
        self.num_damaged = 0
        """Lines that are no row, and are left out."""
        self._read_to, self._file = 0, (0, 0)

    def refresh(self) -> bool:
        """Reads what was appended, or all where the file is another one. Returns whether that changed it."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            is_new, self.entries = bool(self.entries), []
            self._read_to, self._file = 0, (0, 0)
            return is_new
        if (found.st_dev, found.st_ino) != self._file or found.st_size < self._read_to:
            self.entries, self._read_to, self.num_damaged = [], 0, 0
            self._file = found.st_dev, found.st_ino
        if found.st_size == self._read_to:
            return False
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):  # is being written, or was cut by a kill
                    break
                self._note(line)
                self._read_to += len(line)
        return True

    def _note(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            entry = Entry(self._read_to, int(row["step"]), str(row["split"]), str(row["prompt"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            self.num_damaged += 1
            return
        self.entries.append(entry)

    def rows(self, entries: Iterable[Entry]) -> list[JsonObject]:
        """Returns the rows of entries. One that is being replaced meanwhile is left out."""
        rows = []
        with self.path.open("rb") as file:
            for entry in entries:
                file.seek(entry.offset)
                try:
                    row = json.loads(file.readline())
                except ValueError:
                    continue
                if isinstance(row, dict) and row.get("prompt") == entry.prompt:
                    rows.append(row)
        return rows

    def evaluations(self) -> dict[int, list[Entry]]:
        """Returns the entries of each evaluation, by its step."""
        found: dict[int, list[Entry]] = {}
        for entry in self.entries:
            if entry.split == "eval":
                found.setdefault(entry.step, []).append(entry)
        return dict(sorted(found.items()))


def choose(entries: Sequence[Entry], limit: int) -> list[Entry]:
    """Returns at most `limit` entries, in their order: all where they fit. Else held-out answers have half of
    the room, the same prompts at each evaluation; the rest is whole groups, of each training step as many.
    """
    if len(entries) <= limit:
        return list(entries)
    of_eval = [e for e in entries if e.split == "eval"]
    of_train = [e for e in entries if e.split != "eval"]
    room = limit // 2 if of_train else limit
    chosen = _spread(of_eval, room)
    chosen += _spread(of_train, limit - len(chosen))
    return sorted(chosen, key=lambda entry: entry.offset)


def _spread(entries: Sequence[Entry], room: int) -> list[Entry]:
    """Returns entries of whole groups, as many of each step."""
    if len(entries) <= room:
        return list(entries)
    steps: dict[int, dict[str, list[Entry]]] = {}
    for step, of_step in groupby(entries, key=lambda entry: entry.step):
        for entry in of_step:
            steps.setdefault(step, {}).setdefault(entry.prompt, []).append(entry)
    size = max(len(group) for groups in steps.values() for group in groups.values())
    per_step = max(1, room // (len(steps) * size))
    kept = list(steps) if len(steps) * size <= room else _evenly(list(steps), max(1, room // size))
    found = [
        entry
        for step in kept
        for prompt in _evenly(list(steps[step]), per_step)
        for entry in steps[step][prompt]
    ]
    return found[:room]


def _evenly(values: Sequence[T], count: int) -> list[T]:
    """Returns `count` of the values, evenly spaced, the first and the last among them."""
    if count >= len(values):
        return list(values)
    if count == 1:
        return [values[-1]]
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]
