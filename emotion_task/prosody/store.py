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
from typing import TextIO

from emotion_task.prosody.files import MeasureConfig, Measured, Outcome
from emotion_task.records import Utterance
from rlcore.errors import DataError

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
            kept = self.read()
            # Without the line that a killed run tore.
            temporary = self._lines.with_suffix(".tmp")
            with temporary.open("w", encoding="utf-8") as out:
                for key, measured in kept.items():
                    out.write(_line(key, measured))
            temporary.replace(self._lines)
            with self._lines.open("a", encoding="utf-8", buffering=1) as out:
                yield Writer(out, kept)

    def read(self) -> dict[str, Measured]:
        """Returns the measurements by key; a last line that is not complete is left out."""
        measured: dict[str, Measured] = {}
        if self._lines.is_file():
            with self._lines.open(encoding="utf-8") as lines:
                for line in lines:
                    if line.endswith("\n"):
                        row = json.loads(line)
                        measured[row["key"]] = row["measured"]
        return measured

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
        self._settings.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


class Writer:
    """Appends measurements; each reaches the file before the next is taken."""

    def __init__(self, out: TextIO, measured: dict[str, Measured]):
        self._out = out
        self.measured = measured
        """Measurements by key: those found in the folder and those added."""

    def add(self, outcome: Outcome) -> None:
        if outcome.measured is not None:
            self._out.write(_line(outcome.key, outcome.measured))
            self.measured[outcome.key] = outcome.measured


def _line(key: str, measured: Measured) -> str:
    return json.dumps({"key": key, "measured": measured}, ensure_ascii=False) + "\n"
