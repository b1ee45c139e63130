"""Records what was asked of an endpoint and what was answered, at the moment when it happens.

There is a line before each request and a line after it: {"key", "event": "asked" | "answered" | "refused" |
"lost", ...}. An answer that was lost (the connection broke, the time ran out, it was no JSON) may have been
paid for, and so may one whose second line is missing, because the process was killed. A later run can see
that, and does not ask a second time unless told to.
"""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path
from typing import Any

from rlcore.errors import DataError
from rlcore.records.files import RowAppender, numbered_rows

KILLED = "under way when an earlier run was killed"
"""The loss of an answer of which the file says nothing more."""
Row = dict[str, Any]
"""A line of the ledger: `key`, `event`, and the fields of that event."""


class Ledger:
    """Reads and appends the ledger file of one run. It may be used from many threads; a second process is
    refused.

    Raises:
        DataError: Another process writes the file, or one of its lines is not a line of a ledger.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self.answers: dict[str, Row] = {}
        """Line of the answer, by key of the request."""
        self.open: dict[str, Row] = {}
        """Line of each request that has no answer, by key; with the `reason`, where it is known."""
        self._lost_usd = 0.0
        self._held = self._path.open("ab")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._held.close()
            raise DataError(f"{path}: another run writes it; wait, or choose another folder") from error
        # A line cut short by a kill goes: its request stays open.
        self._file = RowAppender(self._path)
        self._read()

    def _read(self) -> None:
        for number, row in numbered_rows(self._path, "a line of a ledger"):
            try:
                self._note(row)
            except (KeyError, TypeError) as error:
                raise DataError(f"{self._path}:{number}: not a line of a ledger: {error}") from error

    def _note(self, row: Row) -> None:
        key, event = row["key"], row["event"]
        if event == "asked":
            # Asked once more: what the lost answer may have cost stays spent.
            self._lost_usd += self.open[key]["at_most_usd"] if key in self.open else 0.0
            self.open[key] = row
        elif event == "lost":
            self.open[key]["reason"] = row["reason"]
        else:
            self.open.pop(key, None)
            if event == "answered":
                self.answers[key] = row

    def write(self, key: str, event: str, **fields: object) -> Row:
        """Appends a line, hands it to the system, so that a kill of this process does not lose it, and
        returns it."""
        row = {"key": key, "event": event, **fields}
        with self._lock:
            self._file.write(row)
            self._note(row)
        return row

    def spent(self) -> float:
        """Returns the US dollars of all answers, plus what requests without an answer may have cost at
        most."""
        with self._lock:
            answered = sum(row["cost_usd"] for row in self.answers.values())
            return answered + self._lost_usd + sum(row["at_most_usd"] for row in self.open.values())

    def close(self) -> None:
        self._file.close()
        self._held.close()


class Budget:
    """Lets requests through while what was spent and what is under way cannot exceed the cap. It may be used
    from many threads."""

    def __init__(self, cap_usd: float | None, spent_usd: float):
        self._cap, self._committed, self._lock = cap_usd, spent_usd, threading.Lock()

    def reserve(self, at_most_usd: float) -> bool:
        with self._lock:
            # A millionth of a cent of rounding must not refuse the last request.
            if self._cap is not None and self._committed + at_most_usd > self._cap + 1e-8:
                return False
            self._committed += at_most_usd
            return True

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        with self._lock:
            self._committed += cost_usd - reserved_usd
