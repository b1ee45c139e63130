"""Scalars for TensorBoard: a picture of metrics.jsonl, whose failure ends no run.

torch's SummaryWriter writes from a thread of its own, which ends with a traceback where the disk is full.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

log = logging.getLogger(__name__)

PATTERN = "events.out.tfevents.*"


class EventWriter:
    """Writes one file of events into `folder`. What cannot be written is said once, and left out from then
    on.

    Args:
        purge_step: TensorBoard forgets what earlier files of the folder have of this step and later ones.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None):
        self._folder = folder
        self._writer: RecordWriter | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            name = PATTERN.replace("*", f"{time.time_ns()}.{socket.gethostname()}.{os.getpid()}")
            # Without a buffer, nothing is left that would be tried again at the end.
            self._writer = RecordWriter((folder / name).open("wb", buffering=0))
        except OSError as error:
            self._give_up(error)
        events = [Event(file_version="brain.Event:2")]
        if purge_step is not None:
            events.append(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
        self._write(events)

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars that are finite."""
        values = [Summary.Value(tag=n, simple_value=v) for n, v in scalars.items() if math.isfinite(v)]
        self._write([Event(step=step, summary=Summary(value=values))])

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, events: list[Event]) -> None:
        if self._writer is None:
            return
        try:
            for event in events:
                event.wall_time = time.time()
                self._writer.write(event.SerializeToString())
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.warning(
            "%s: events for TensorBoard end here, as they cannot be written (%s); metrics.jsonl has them all",
            self._folder,
            error.strerror,
        )
        self.close()
