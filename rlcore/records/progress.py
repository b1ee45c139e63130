"""Progress of long work, on stderr. A terminal has a bar; a log has whole lines, and nothing is redrawn."""

from __future__ import annotations

import sys
import time
from typing import Any

import psutil
from tqdm import tqdm

LINE_EVERY_S = 10.0
"""Seconds between two lines of a log, where the work says nothing else."""


def tell(what: str) -> None:
    """Says what begins now, behind the time since the command began: `[  2.1 s] starting Ray`."""
    passed = time.time() - psutil.Process().create_time()
    tqdm.write(f"[{_clock(passed):>8}] {what}", file=sys.stderr)


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{max(0.0, seconds):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def duration(seconds: float) -> str:
    """Returns a time as people say it: `45 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Progress(tqdm):  # type: ignore[type-arg]
    """A tqdm bar that writes lines where its stream is no terminal.

    Args:
        line_every_s: least seconds between two such lines; 0 writes one at each update.
        arguments: as tqdm's. `disable=None` says nothing at all into a log.
    """

    def __init__(self, *arguments: Any, line_every_s: float = LINE_EVERY_S, **named: Any):
        stream: Any = named.setdefault("file", sys.stderr)
        self._is_log = not stream.isatty()
        self._every_s, self._told_n, self._told_at = line_every_s, 0.0, time.monotonic()
        if self._is_log:
            named |= {"mininterval": line_every_s, "miniters": 1, "delay": 1e-9}  # nothing at the start
        super().__init__(*arguments, **named)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draws the bar, or writes a line where there is news."""
        if not self._is_log:
            super().display(msg, pos)
        elif time.monotonic() - self._told_at >= self._every_s:
            self._tell()

    def clear(self, nolock: bool = False) -> None:
        """Takes the bar off a terminal for a moment; a log keeps its lines."""
        if not self._is_log:
            super().clear(nolock)

    def close(self) -> None:
        """Ends the bar; a log gets the last line if it has not had it."""
        is_disabled: bool = self.disable  # type: ignore[has-type]
        if self._is_log and not is_disabled:
            self._tell()
            self.disable = True  # or tqdm would empty the line
            self._decr_instances(self)
        super().close()

    def _tell(self) -> None:
        if self.n not in (self.initial, self._told_n):
            self._told_n, self._told_at = self.n, time.monotonic()
            print(self._line(), file=self.fp, flush=True)

    def _line(self) -> str:
        found = self.format_dict
        pace = found["elapsed"] / max(1e-9, self.n - self.initial)
        of = f"/{self.total:g}" if self.total else ""
        parts = [f"{self.desc.rstrip(': ') or self.unit} {self.n:g}{of}"]
        if found["postfix"]:
            parts.append(str(found["postfix"]).replace("=", " ").replace(", ", "  "))
        parts.append(f"{pace:.1f} s/{self.unit}" if pace >= 0.1 else f"{1 / pace:.0f} {self.unit}/s")
        if self.total and self.n < self.total:
            parts.append(f"{duration(pace * (self.total - self.n))} left")
        return "  ".join(parts)
