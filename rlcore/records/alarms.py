"""Warnings of a run, kept beside its metrics: the terminal that showed them may be gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from rlcore.records.files import append_rows, keep_rows

ALARMS = "warnings.jsonl"


@contextmanager
def kept_alarms(run_dir: Path) -> Iterator[None]:
    """Appends every warning of this process during the block to `run_dir/warnings.jsonl`: `time` (epoch
    seconds), `level`, `logger` and `text`."""
    handler = _Keeper(run_dir / ALARMS)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def drop_earlier_alarms(run_dir: Path) -> None:
    """Drops the warnings of a run that lay in the folder before this process began."""
    began = psutil.Process().create_time()
    keep_rows(run_dir / ALARMS, lambda row: row["time"] >= began)


class _Keeper(logging.Handler):
    def __init__(self, path: Path):
        super().__init__(logging.WARNING)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        row = {
            "time": round(time.time(), 3),
            "level": record.levelname,
            "logger": record.name,
            "text": record.getMessage(),
        }
        with suppress(OSError):  # a full disk has its own error, and this handler cannot warn
            append_rows(self._path, [row])
        if logging.lastResort is not None and not self._is_shown(record):
            logging.lastResort.handle(record)

    def _is_shown(self, record: logging.LogRecord) -> bool:
        """Tells whether another handler has the record. Where none has, Python shows warnings by itself, but
        not beside this handler."""
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False
