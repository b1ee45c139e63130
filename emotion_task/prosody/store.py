"""Keeps measurements: one line per utterance, appended when it is finished, so that a killed run can go on.

    measured.jsonl   key and measurements; each key once
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
from rlcore.records.files import RowAppender, read_rows, write_json

_VERSION = 2
"""Increase this number when a measurement changes its meaning, so that old and new are not mixed."""


def key_of(utterance: Utterance) -> str:
    """Returns a digest of everything in the utterance that its measurement depends on; settings are apart."""
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

    def read(self) -> dict[str, Measured]:
        """Returns the measurements by key; a last line that is not complete is left out."""
        return {row["key"]: row["measured"] for row in read_rows(self._lines)}

    def _check_settings(self, config: MeasureConfig) -> None:
        settings = {"version": _VERSION, **asdict(config)}
        if self._lines.is_file() and self._settings.is_file():
            found = json.loads(self._settings.read_text(encoding="utf-8"))
            changed = sorted(name for name in settings if found.get(name) != settings[name])
            if changed:
                told = ", ".join(f"{name} {found.get(name)!r}, now {settings[name]!r}" for name in changed)
                raise DataError(
                    f"{self._lines}: measured with other settings ({told}). Measure into another folder, or "
                    "start afresh (resume=False, --fresh)"
                )
        write_json(self._settings, settings)


class Writer:
    """Appends measurements; each reaches the file before the next is taken."""

    def __init__(self, out: RowAppender, measured: dict[str, Measured]):
        self._out = out
        self.measured = measured
        """Measurements by key: those found in the folder and those added."""

    def add(self, outcome: Outcome) -> None:
        if outcome.measured is not None:
            self._out.write({"key": outcome.key, "measured": outcome.measured})
            self.measured[outcome.key] = outcome.measured
