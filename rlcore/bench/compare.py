"""Compares two results of `rlcore bench`, measure by measure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlcore.errors import DataError
from rlcore.records.files import JsonObject

_RATES = ("samples_per_second", "tokens_per_second")
_MIN_SHARE = 0.05
"""Share of a step; phases that take less are noise, and not compared."""
_MACHINE = ("cpu", "num_cpus", "gpu", "config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One measure, as both results have it."""

    name: str
    """Workload and measure, for instance `text-forced: seconds of update`."""
    before: float
    after: float
    higher_is_better: bool

    @property
    def loss(self) -> float:
        """Loss of `after`, as a share of `before`; negative where `after` is better."""
        change = self.after / self.before - 1 if self.before else math.inf * bool(self.after)
        return -change if self.higher_is_better else change


def compare(before: str | Path, after: str | Path) -> tuple[list[Change], list[str]]:
    """Returns the measures that both files have, and warnings.

    Warned of is what explains a change too: other hardware, other settings, a busy machine.

    Raises:
        DataError: a file is no result of `rlcore bench`, or they share no workload.
    """
    old, new = _read(before), _read(after)
    shared = [name for name in old["workloads"] if name in new["workloads"]]
    if not shared:
        raise DataError(f"{after}: has no workload of {before} ({', '.join(old['workloads'])})")
    warnings = [
        f"{key} differs: {old.get(key)!r}, now {new.get(key)!r}"
        for key in _MACHINE
        if old.get(key) != new.get(key)
    ]
    if max(old["load"], new["load"]) > (new["num_cpus"] or 1):
        warnings.append(f"the machine was busy: load {old['load']}, now {new['load']}")
    changes = [
        change for name in shared for change in _changes(name, old["workloads"][name], new["workloads"][name])
    ]
    return changes, warnings


def _changes(workload: str, old: JsonObject, new: JsonObject) -> Iterator[Change]:
    for name in _RATES:
        yield Change(name=f"{workload}: {name}", before=old[name], after=new[name], higher_is_better=True)
    for phase, seconds in old["seconds"].items():
        now = new["seconds"].get(phase)
        if now is not None and max(seconds, now) >= _MIN_SHARE * old["step_seconds"]:
            name = f"{workload}: seconds of {phase}"
            yield Change(name=name, before=seconds, after=now, higher_is_better=False)
    for process, peak in old["peak_mb"].items():
        if process in new["peak_mb"]:
            name = f"{workload}: peak MB of {process}"
            yield Change(name=name, before=peak, after=new["peak_mb"][process], higher_is_better=False)


def _read(path: str | Path) -> JsonObject:
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(result, dict) or result.get("benchmark") != "rlcore bench":
        raise DataError(f"{path}: is no result of rlcore bench (rlcore bench --json {path})")
    return {**result, "workloads": {row["name"]: row for row in result["workloads"]}}
