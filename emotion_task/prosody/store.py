"""Keeps measurements: one line per utterance, appended when it is finished, so that a killed run can go on.

    measured.jsonl   key, the recording's size and time of change, and measurements; a key's last line counts
    measure.json     the settings that the measurements were made with

Failures are not kept between runs: the next run tries those files again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from emotion_task.prosody.files import MeasureConfig, Measured, Outcome
from emotion_task.records import Utterance
from rlcore.errors import DataError
from rlcore.records.files import JsonObject, RowAppender, read_json, read_rows, write_json

_VERSION = 5
"""Increase this number when a measurement changes its meaning, so that old and new are not mixed."""


Stamp = tuple[int, int]
"""A recording's size in bytes and its time of change in nanoseconds."""


def stamp_of(utterance: Utterance) -> Stamp | None:
    """Returns what tells a recording from one that takes its place, or None where there is no such file."""
    try:
        found = Path(utterance.audio).stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def key_of(utterance: Utterance) -> str:
    """Returns a digest of everything in the utterance that its measurement depends on.

    Settings are apart, and so is the recording's content (`stamp_of`).
    """
    parts = (utterance.id, utterance.audio, utterance.text, utterance.gender, utterance.language)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


class MeasuredStore:
    """Reads and extends the measurements in a folder: `read` needs no lock, `open` locks the folder to add
    some."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._lines, self._settings = self.folder / "measured.jsonl", self.folder / "measure.json"

    @contextmanager
    def open(self, config: MeasureConfig, *, resume: bool) -> Iterator[Writer]:
        """Opens the folder for appending. Only one process at a time may do so.

        Args:
            config: the settings of the measurements to come.
            resume: whether measurements that the folder holds are kept; otherwise they are deleted.

        Yields:
            A writer, which also holds the measurements that were kept.

        Raises:
            DataError: Another process writes here, or the folder was measured with other settings.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "measured.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(f"{self.folder}: another process is measuring into this folder") from error
            if not resume:
                self._lines.unlink(missing_ok=True)
            self._check_settings(config)
            with RowAppender(self._lines) as out:
                yield Writer(out, self.read())

    def read(self) -> Measurements:
        """Returns the folder's measurements; a last line that is not complete is left out."""
        return Measurements({row["key"]: row for row in read_rows(self._lines)})

    def is_of(self, config: MeasureConfig) -> bool:
        """Tells whether the folder holds measurements, all made with these settings."""
        return self._lines.is_file() and self._settings.is_file() and not self._changed(config)

    def _check_settings(self, config: MeasureConfig) -> None:
        if self._lines.is_file() and self._settings.is_file() and (changed := self._changed(config)):
            told = ", ".join(f"{name} {before!r}, now {now!r}" for name, (before, now) in changed.items())
            raise DataError(
                f"{self._lines}: measured with other settings ({told}). Measure into another folder, or "
                "start afresh (resume=False, --fresh)"
            )
        write_json(self._settings, _described(config))

    def _changed(self, config: MeasureConfig) -> dict[str, tuple[object, object]]:
        """Returns, by name, the settings of the folder's measurements that are others now."""
        found, now = read_json(self._settings), _described(config)
        return {n: (found.get(n), now[n]) for n in sorted(now) if found.get(n) != now[n]}


def _described(config: MeasureConfig) -> JsonObject:
    return {"version": _VERSION, **asdict(config)}


class Measurements:
    """Holds the measurements that were found in a folder."""

    def __init__(self, rows: dict[str, JsonObject]):
        self._rows = rows

    def of(self, utterance: Utterance) -> Measured | None:
        """Returns the utterance's measurements; None where there are none, or they are of a recording whose
        place another has taken."""
        row = self._rows.get(key_of(utterance))
        return None if row is None or self._is_replaced(row, utterance) else row["measured"]

    def is_replaced(self, utterance: Utterance) -> bool:
        """Tells whether the folder measured another recording of the same name, or one of unknown date."""
        row = self._rows.get(key_of(utterance))
        return row is not None and self._is_replaced(row, utterance)

    def _is_replaced(self, row: JsonObject, utterance: Utterance) -> bool:
        # Where the recording is gone, what was measured of it still holds.
        now = stamp_of(utterance)
        return now is not None and row.get("recording") != list(now)


class Writer:
    """Appends measurements; each reaches the file before the next is taken."""

    def __init__(self, out: RowAppender, found: Measurements):
        self._out = out
        self.found = found
        """Measurements that the folder held when it was opened."""

    def add(self, outcome: Outcome, stamp: Stamp | None) -> None:
        """Appends the measurements of an outcome, where it has some.

        Args:
            stamp: the recording's `stamp_of`, taken before it was measured.
        """
        if outcome.measured is not None:
            self._out.write({"key": outcome.key, "recording": stamp, "measured": outcome.measured})
