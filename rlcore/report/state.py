"""State and warnings of a run, read from its folder, which is left as it is."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from rlcore.errors import DataError
from rlcore.loop.metrics import MAX_TRUNCATED
from rlcore.records.alarms import ALARMS
from rlcore.records.files import JsonObject, last_row, read_json, read_rows
from rlcore.records.run_lock import LOCK
from rlcore.records.timeline import STATUS
from rlcore.records.tracking import METRICS

RUNNING, FINISHED, STOPPED, ENDED = "running", "finished", "stopped", "ended early"
_RECENT_STEPS = 20
_FRESH_S = 900.0
"""A run on another host whose records are younger than this is taken to go on."""
_HOLDER = re.compile(r"process (\d+) on (\S+) since (\S+ \S+ \S+)")


def is_run(folder: Path) -> bool:
    """Tells whether a folder holds records of a run."""
    return (folder / METRICS).is_file() or (folder / STATUS).is_file()


def check_run(folder: Path) -> None:
    """Refuses a folder that holds no run.

    Raises:
        DataError: names the runs below the folder, where there are some.
    """
    if is_run(folder):
        return
    below = sorted(str(path) for path in folder.glob("*") if is_run(path)) if folder.is_dir() else []
    hint = f"Below it are {', '.join(below)}" if below else "Name the folder of a run (run_dir of its config)"
    raise DataError(f"{folder}: holds no run. {hint}")


def read_config(folder: Path) -> JsonObject:
    """Returns the configuration of a run as it was written; empty where there is none, or no mapping."""
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not YAML ({error}); mend it, or take it away") from error
    return found if isinstance(found, dict) else {}


def state_of(folder: Path, config: Mapping[str, Any], rows: Sequence[JsonObject] = ()) -> JsonObject:
    """Returns what a run does, as far as its folder tells.

    Args:
        rows: of metrics.jsonl, for the time that is left; without them that is not told.

    Returns:
        `state` (`running`, `finished`, `stopped` by a signal, `ended early`: killed or failed), `step`,
        `num_steps` (None where not known), `phase` and `since` of a running one, `updated` (epoch seconds of
        its last row), `eta_s` (seconds to the last step at the pace of the last steps; None where not known).
    """
    summary, status = read_json(folder / "summary.json"), read_json(folder / STATUS)
    last = rows[-1] if rows else last_row(folder / METRICS) or {}
    is_evaluation = _is_evaluation(folder, last)
    num_steps = None if is_evaluation else (config.get("train") or {}).get("num_steps")
    step = int(last.get("step") or 0)
    is_over = status.get("phase") in (None, "end")
    if not is_over and _is_alive(folder):
        state = RUNNING
    elif summary.get("stopped_by") and summary.get("steps") == step:
        state = STOPPED
    elif "after" in summary or not status or is_evaluation:
        state = FINISHED
    else:
        state = ENDED
    is_running = state == RUNNING
    return {
        "state": state,
        "step": step,
        "num_steps": num_steps,
        "phase": status.get("phase") if is_running else None,
        "since": status.get("since") if is_running else None,
        "updated": last.get("time"),
        "stopped_by": summary.get("stopped_by"),
        "eta_s": _time_left(rows, num_steps) if is_running else None,
    }


def _is_evaluation(folder: Path, last: Mapping[str, object]) -> bool:
    """Tells whether these are the whole records of `rlcore evaluate`, which writes one row at its end."""
    return folder.name.split(".")[0] == "eval" and bool(last)


def _is_alive(folder: Path) -> bool:
    """Tells whether the process that has the folder lives. Of another host that cannot be seen: there the age
    of the records decides."""
    path = folder / LOCK
    found = _HOLDER.match(path.read_text(encoding="utf-8")) if path.is_file() else None
    if found is None:
        return False
    pid, host, since = found.groups()
    if host != socket.gethostname():
        ages = [time.time() - each.stat().st_mtime for each in folder.glob("*.json*")]
        return min(ages, default=_FRESH_S) < _FRESH_S
    try:
        began = time.mktime(time.strptime(since.rsplit(" ", 1)[0], "%Y-%m-%d %H:%M:%S"))
        process = psutil.Process(int(pid))
        # A process that began after the run has got the number of one that is gone.
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < began + 2
    except (ValueError, psutil.Error):
        return False


def seconds_per_step(rows: Sequence[JsonObject]) -> float | None:
    """Returns the median seconds between the last steps, all that came between included; None where there are
    fewer than two."""
    times = [row["time"] for row in rows if "time" in row and "update_skipped" in row][-_RECENT_STEPS - 1 :]
    return float(np.median(np.diff(times))) if len(times) > 1 else None


def _time_left(rows: Sequence[JsonObject], num_steps: int | None) -> float | None:
    pace = seconds_per_step(rows)
    if pace is None or num_steps is None:
        return None
    return pace * max(0, num_steps - int(rows[-1]["step"]))


def alarms_of(folder: Path, rows: Sequence[JsonObject]) -> list[JsonObject]:
    """Returns what a run warned of, and what its metrics say beside: `text`, `step` and `time` of the first
    one (None where not known), and how often (`count`). The newest kind is last."""
    found: dict[str, JsonObject] = {}
    for row in read_rows(folder / ALARMS):
        alarm = found.setdefault(
            str(row.get("text")), {"text": row.get("text"), "step": None, "time": row.get("time"), "count": 0}
        )
        alarm["count"] += 1
    restarts = 0.0
    for row in rows:
        for text in _told_by(row):
            alarm = found.setdefault(
                text, {"text": text, "step": row["step"], "time": row.get("time"), "count": 0}
            )
            alarm["count"] += 1
        now = sum(row.get(f"{role}/restarts") or 0 for role in ("rollout", "learner", "reference"))
        if now > restarts:
            text = "actors were lost and started anew"
            alarm = found.setdefault(
                text, {"text": text, "step": row["step"], "time": row.get("time"), "count": 0}
            )
            alarm["count"] += int(now - restarts)
        restarts = max(restarts, now)
    return list(found.values())


def _told_by(row: JsonObject) -> list[str]:
    """Returns what is wrong with a step, or with an evaluation."""
    told = []
    for name, where in (("completion/truncated", "training"), ("eval/truncated", "evaluation")):
        if (row.get(name) or 0) > MAX_TRUNCATED:
            told.append(f"{where}: more than {MAX_TRUNCATED:.0%} of the answers were cut at the token limit")
    if row.get("update_skipped"):
        told.append("an update was skipped: too few answers were left to train on")
    for name, value in row.items():
        if name.startswith("reward_errors/") and value:
            told.append(f"scores of the reward {name.removeprefix('reward_errors/')} failed")
    if "loss" in row and row["loss"] is None:
        told.append("the loss was not finite")
    return told
