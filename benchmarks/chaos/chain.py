"""One run that is struck again and again, each time in another cell, and then left to end."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.chaos.cells import RAY, STATES, Cell
from benchmarks.chaos.processes import AGAIN, DisturbedRun, Status, strike
from rlcore.records import checkpoint
from rlcore.records.timeline import read_spans

RECOVERY_S = 300.0
"""Longest wait for a run to have done a whole step after a strike."""
ERROR_S = 120.0
"""Longest wait for the end of a run whose Ray died; on a quiet machine 60 s are enough."""
DRIVER_S = 30.0
"""Longest wait for what is said of a driver's death."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An outcome is what came of one strike."""

    victim: str
    state: str
    signal: str
    staleness: int
    step: int
    """Last step that was finished before."""
    after_s: float
    """Seconds from the beginning of the phase to the strike."""
    ended: str
    """`recovered`: the run went on by itself; `error`: it ended with a sentence that says how to go on;
    `failed`."""
    seconds: float
    """To the end of the first step that began after the strike, or to the end of the run."""
    problem: str = ""


def typical_seconds(run: DisturbedRun) -> dict[str, float]:
    """Returns the median seconds of each of the controller's phases in a run that has ended."""
    seconds: dict[str, list[float]] = {}
    for span in read_spans(run.folder):
        if span.actor == "controller":
            seconds.setdefault(span.phase, []).append(span.end - span.start)
    return {phase: sorted(each)[len(each) // 2] for phase, each in seconds.items()}


def run_cells(
    run: DisturbedRun,
    cells: Sequence[Cell],
    typical: Mapping[str, float],
    note: Callable[[Outcome], None],
    seed: int,
) -> list[str]:
    """Strikes in every cell, then lets the run end. Returns what went wrong with the end."""
    for cell in cells:
        rng = random.Random(f"{seed} {cell}")
        begin(run, cell)
        phase = STATES[cell.state]
        length_s = typical.get(phase, 2.0 if phase == "start" else 0.0)
        struck = strike(
            run,
            cell.victim,
            phase,
            cell.signal,
            delay_s=rng.uniform(0.05, 0.8) * length_s,
            timeout_s=RECOVERY_S,
        )
        note(outcome(run, cell, struck))
    return finish(run)


def begin(run: DisturbedRun, cell: Cell) -> None:
    """Has a run that is running; for a strike in the start, one that has just begun to."""
    status = run.status()
    if run.is_running and cell.state == "starting" and status is not None and status.phase != "start":
        run.end()
    if not run.is_running:
        run.start(*AGAIN)


def outcome(run: DisturbedRun, cell: Cell, struck: tuple[Status, float] | None) -> Outcome:
    """Waits for what comes of a strike; a run that ended is started anew by the command that it named."""
    names = {"victim": cell.victim, "state": cell.state, "signal": cell.signal, "staleness": cell.staleness}
    step = max((row["step"] for row in run.steps()), default=0)
    if struck is None:
        return Outcome(**names, step=step, after_s=0.0, ended="failed", seconds=0.0, problem="not struck")
    status, at = struck
    if cell.ends_run:
        ended, problem = "error", wait_for_error(run, cell)
    else:
        ended, problem = "recovered", wait_for_recovery(run, step, at)
    seconds, after_s = time.time() - at, at - status.since
    if not run.is_running and run.driver.returncode != 0:
        if not cell.ends_run:
            ended, problem = "error", problem or ""
        run.go_on()
    ended = "failed" if problem else ended
    return Outcome(**names, step=step, after_s=after_s, ended=ended, seconds=seconds, problem=problem)


def wait_for_recovery(run: DisturbedRun, step: int, at: float) -> str:
    """Waits until a run has ended, or has finished the step after the one that was struck. Returns what went
    wrong."""

    def is_back() -> bool:
        rows = run.steps()
        return not run.is_running or (bool(rows) and rows[-1]["step"] > step + 1 and rows[-1]["time"] > at)

    if not run.wait(is_back, RECOVERY_S):
        run.end()
        return f"no step within {RECOVERY_S:g} s"
    if not run.is_running and run.driver.returncode != 0:
        return f"the run ended: {last_error(run) or 'without a word'}"
    return ""


def wait_for_error(run: DisturbedRun, cell: Cell) -> str:
    """Waits until a run has ended and said why. Returns what is wrong with it."""
    deadline_s = DRIVER_S if cell.victim == "driver" else ERROR_S
    if not run.wait(lambda: not run.is_running and last_error(run), deadline_s):
        running = "is still running" if run.is_running else "said nothing"
        run.end()
        return f"the run {running} after {deadline_s:g} s"
    return wrong_words(run, cell.victim, cell.state, cell.signal)


def last_error(run: DisturbedRun) -> str:
    """Returns the last error that a run has told."""
    return ["", *re.findall(r"rlcore: error: .*", run.said())][-1]


def wrong_words(run: DisturbedRun, victim: str, state: str, signal: str) -> str:
    """Returns an error that does not name who died, what is saved, and the command that goes on; else
    nothing."""
    who = r"the driver" if victim == "driver" else rf"Ray's {RAY[victim]} of \S+"
    what = r"is stopped \(SIGSTOP\)" if signal == "stop" else r"(died|was killed)"
    error = last_error(run)
    found = checkpoint.complete(run.folder / "checkpoints")
    command = f"`rlcore train --config {run.folder / 'config.yaml'} --resume` goes on from there"
    saved = f"{found[-1]} is saved, and {command}" if found else "No step was saved; "
    named = re.search(
        rf"rlcore: error: (.* died, and |the driver .*, and )?{who} \(process \d+ on \S+\) {what}", error
    )
    if victim in RAY and state == "starting":  # until Ray stands, nobody knows its processes
        named = named or re.search(r"error: (Ray did not start|the driver .* was killed, or ended)", error)
    return "" if named and saved in error else f"said: {error}"


def finish(run: DisturbedRun) -> list[str]:
    """Lets the run end. Returns what went wrong."""
    if not run.is_running and run.driver.returncode != 0:
        run.go_on()
    if not run.wait(lambda: not run.is_running, 600.0):
        run.end()
        return ["the run did not end"]
    return [] if run.driver.returncode == 0 else [last_error(run) or "the run ended without a word"]


def row(outcome: Outcome) -> dict[str, object]:
    """Returns an outcome as a row of the results."""
    values = asdict(outcome)
    return values | {name: round(values[name], 2) for name in ("after_s", "seconds")}
