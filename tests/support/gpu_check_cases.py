"""Runs parts of benchmarks.gpu_check with tiny shapes, and holds parts that go wrong, each after one row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.parts import PARTS, environment
from benchmarks.gpu_check.record import Record, read_rows

PROJECT = Path(__file__).resolve().parents[2]
ENGINES = [name for name, part in PARTS.items() if "vllm" in part.needs]
_SCRIPT = """
import importlib, json, sys
from pathlib import Path
from benchmarks.gpu_check.record import Record
for package in json.loads(sys.argv[2]):
    sys.modules[package] = None  # as where it is not installed
if __name__ == "__main__":
    for module, function, out in json.loads(sys.argv[1]):
        getattr(importlib.import_module(module), function)(Record(Path(out)), "cpu", tiny=True)
"""


def run_tiny(
    names: Sequence[str], folder: Path, *, without: Sequence[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Runs parts one after another in one process, which saves their imports, and returns their rows.
    Packages of `without` cannot be imported."""
    calls = [[*PARTS[name].target.split(":"), str(folder / name)] for name in names]
    script = folder / "run.py"
    script.write_text(_SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script, json.dumps(calls), json.dumps(without)],
        env=environment("cpu") | {"PYTHONPATH": str(PROJECT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: read_rows(folder / name) for name in names}


def fine(record: Record, device: str, *, tiny: bool) -> None:
    record.measured("first", 1.5, "GB/s", at_least=1.0)


def misses(record: Record, device: str, *, tiny: bool) -> None:
    record.measured("first", 1.5, "nats", at_most=1.0)


def never_a_number(record: Record, device: str, *, tiny: bool) -> None:
    record.measured("first", float("nan"), "nats", at_most=1.0)


def breaks_in_part(record: Record, device: str, *, tiny: bool) -> None:
    try:
        raise ValueError("first line\nlast line")
    except ValueError as error:
        record.broke("one stage", error)
    record.measured("another", 1)


def crashes(record: Record, device: str, *, tiny: bool) -> None:
    record.measured("first", 1)
    sys.stdout.flush()
    os.abort()


def hangs(record: Record, device: str, *, tiny: bool) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    record.measured("child", child.pid)
    time.sleep(600)
