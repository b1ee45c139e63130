"""Parts of benchmarks.gpu_check that go wrong, each after one row."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.gpu_check.record import Record


def fine(record: Record, device: str, *, tiny: bool) -> None:
    record.measured("first", 1.5, "GB/s", at_least=1.0)


def misses(record: Record, device: str, *, tiny: bool) -> None:
    record.measured("first", 1.5, "nats", at_most=1.0)


def never_a_number(record: Record, device: str, *, tiny: bool) -> None:
    record.measured("first", float("nan"), "nats", at_most=1.0)


def crashes(record: Record, device: str, *, tiny: bool) -> None:
    record.measured("first", 1)
    sys.stdout.flush()
    os.abort()


def hangs(record: Record, device: str, *, tiny: bool) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    record.measured("child", child.pid)
    time.sleep(600)
