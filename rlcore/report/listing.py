"""The runs below a folder, a line each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from rlcore.errors import DataError
from rlcore.records.files import JsonObject
from rlcore.records.tracking import METRICS, read_metrics
from rlcore.report.state import RUNNING, is_run, read_config, state_of

_DEEPEST = 4


def listed(folders: Sequence[Path]) -> list[tuple[str, str, str, str, str]]:
    """Returns name, state, steps, headline and age of each run below the folders, the newest last.

    A run whose records cannot be read is listed with the reason.

    Raises:
        DataError: a folder does not exist.
    """
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise DataError(f"{missing[0]}: no such folder; name one that holds runs")
    found = [path for folder in folders for path in _runs(folder, _DEEPEST)]
    return [line for _, line in sorted(_line(path) for path in dict.fromkeys(found))]


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
    if depth:
        for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()):
            yield from _runs(inner, depth - 1)


def _line(folder: Path) -> tuple[float, tuple[str, str, str, str, str]]:
    try:
        rows = read_metrics(folder) if (folder / METRICS).is_file() else []
        state = state_of(folder, read_config(folder), rows)
    except (DataError, OSError) as error:
        return 0.0, (str(folder), "unreadable", "-", str(error), "-")
    updated = float(state["updated"] or folder.stat().st_mtime)
    total = state["num_steps"]
    steps = f"{state['step']}" + (f"/{total}" if total else "")
    told = str(state["state"])
    if told == RUNNING and state["eta_s"] is not None:
        told += f", {_duration(state['eta_s'])} left"
    return updated, (str(folder), told, steps, _headline(rows), f"{_duration(time.time() - updated)} ago")


def _headline(rows: Sequence[JsonObject]) -> str:
    """Returns the first metric of the first and of the last evaluation."""
    heads = [next(islice(((n, v) for n, v in row.items() if n.startswith("eval/")), 1), None) for row in rows]
    found = [head for head in heads if head is not None and head[1] is not None]
    if not found:
        return "-"
    name, value = found[-1]
    before = f"{found[0][1]:.3f} -> " if len(found) > 1 else ""
    return f"{name.removeprefix('eval/')} {before}{value:.3f}"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
