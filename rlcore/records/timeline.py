"""A run's timeline: when every actor was in which phase, as a trace for Perfetto or chrome://tracing.

Spans are appended to `run_dir/spans.jsonl` as they end; `write_trace` makes the trace of them. What the
controller is doing now is in `run_dir/status.json`. Times are epoch seconds, so that the spans of several
machines lie on one axis as well as their clocks agree.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rlcore.errors import DataError
from rlcore.records.files import append_rows, keep_rows, read_rows, write_json, write_text

log = logging.getLogger(__name__)

SPANS = "spans.jsonl"
TRACE = "timeline.json"
STATUS = "status.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of time that one actor spent in one phase."""

    actor: str
    """Name of the actor, for instance `rollout[1]` or `controller`."""
    phase: str
    start: float
    """Epoch seconds at which the phase began."""
    end: float
    """Epoch seconds at which the phase ended."""
    step: int | None = None
    """Training step (from 1) that the work was for; None where the work was for no single step."""


class Recorder:
    """Collects spans. Threads may share one recorder.

    Args:
        path: file to append to; None: spans are kept until `take`, and nobody is told the phase. Spans that
            cannot be written now are written with the next ones, and a first warning says so: no work fails
            for its span.
    """

    def __init__(self, path: Path | None = None):
        self._path, self._spans, self._lock = path, list[Span](), threading.Lock()
        self._has_warned = False

    @contextmanager
    def span(self, actor: str, phase: str, step: int | None = None) -> Iterator[None]:
        """Records the time of the block, however the block ends."""
        start = time.time()
        try:
            yield
        finally:
            self.add([Span(actor=actor, phase=phase, start=start, end=time.time(), step=step)])

    @contextmanager
    def phase(self, name: str, step: int | None = None) -> Iterator[None]:
        """Records the time of the block as the controller's, and says meanwhile that the run is in this
        phase."""
        self.say(name, step)
        try:
            with self.span("controller", name, step):
                yield
        finally:
            self.say("idle", step)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Says that the run is in `start` until the first phase, and in `end` after the block."""
        self.say("start")
        try:
            yield
        finally:
            self.say("end")

    def say(self, phase: str, step: int | None = None) -> None:
        """Replaces `status.json` by the phase, its step and when it began, if that can be written."""
        if self._path is not None and self._path.parent.is_dir():  # a folder that is gone is not made anew
            status = {"phase": phase, "step": step, "since": time.time()}
            with suppress(OSError):
                write_json(self._path.with_name(STATUS), status)

    def add(self, spans: Sequence[Span]) -> None:
        """Appends spans to the file, or keeps them where there is none."""
        if not spans:
            return
        with self._lock:
            self._spans += spans
            if self._path is None:
                return
            try:
                append_rows(self._path, map(asdict, self._spans))
                self._spans = []
            except OSError as error:
                if not self._has_warned:
                    log.warning("%s: spans wait until they can be written: %s", self._path, error)
                self._has_warned = True

    def take(self) -> list[Span]:
        """Returns the spans kept so far, and forgets them."""
        with self._lock:
            spans, self._spans = self._spans, []
        return spans


class Clock:
    """Adds up the seconds that the controller spends in each phase of a step, and records them as spans."""

    def __init__(self, recorder: Recorder, step: int):
        self.seconds: dict[str, float] = {}
        self._recorder, self._step = recorder, step

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time of the block to the phase `name`."""
        start = time.perf_counter()
        try:
            with self._recorder.phase(name, self._step):
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def keep_spans(run_dir: str | Path, last_step: int) -> None:
    """Drops the spans of the steps after `last_step`, which a resumed run will do again.

    A span without a step is kept where it began before the end of `last_step`.
    """
    path = Path(run_dir) / SPANS
    ends = [row["end"] for row in read_rows(path) if row["step"] is not None and row["step"] <= last_step]
    end = max(ends, default=-math.inf)
    keep_rows(path, lambda row: row["start"] < end if row["step"] is None else row["step"] <= last_step)


def read_spans(run_dir: str | Path) -> list[Span]:
    """Returns the spans of a run, sorted by their start.

    Raises:
        DataError: the folder has no spans.
    """
    path = Path(run_dir) / SPANS
    if not path.is_file():
        raise DataError(f"{path}: no such file. Name the folder of a run (run_dir of its config).")
    spans = [Span(**row) for row in read_rows(path)]
    if not spans:
        raise DataError(f"{path}: holds no spans; the run ended before its first step")
    return sorted(spans, key=lambda span: span.start)


def write_trace(run_dir: str | Path) -> Path:
    """Writes `run_dir/timeline.json` in Chrome's trace format and returns the file's path.

    Each actor has a row; times are microseconds from the start of the first span.
    """
    spans = read_spans(run_dir)
    actors = sorted({span.actor for span in spans})
    origin = spans[0].start
    events: list[dict[str, object]] = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": tid, "args": {"name": actor}}
        for tid, actor in enumerate(actors, 1)
    ]
    for span in spans:
        events.append(
            {
                "ph": "X",
                "name": span.phase,
                "cat": "rlcore",
                "pid": 1,
                "tid": actors.index(span.actor) + 1,
                "ts": round(1e6 * (span.start - origin)),
                "dur": round(1e6 * (span.end - span.start)),
                "args": {} if span.step is None else {"step": span.step},
            }
        )
    path = Path(run_dir) / TRACE
    write_text(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))
    return path


def within(spans: Iterable[Span], start: float, end: float) -> list[Span]:
    """Returns the spans cut to [start, end] (epoch seconds), sorted by their start."""
    cut = (replace(span, start=max(span.start, start), end=min(span.end, end)) for span in spans)
    return sorted((span for span in cut if span.start < span.end), key=lambda span: span.start)


def busy_seconds(spans: Sequence[Span]) -> dict[str, dict[str, float]]:
    """Returns the seconds of each actor in each phase; time in which a phase overlaps itself counts once."""
    intervals: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for span in spans:
        intervals.setdefault((span.actor, span.phase), []).append((span.start, span.end))
    seconds: dict[str, dict[str, float]] = {}
    for (actor, phase), parts in sorted(intervals.items()):
        seconds.setdefault(actor, {})[phase] = _union(parts)
    return seconds


def _union(intervals: Sequence[tuple[float, float]]) -> float:
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
