"""Kills of random victims at random moments after a run's first step, several in each run, without a look at
what the run is doing."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.chaos.cells import ACTORS
from benchmarks.chaos.chain import DRIVER_S, finish, last_error, wrong_words
from benchmarks.chaos.checks import problems
from benchmarks.chaos.matrix import run_alone
from benchmarks.chaos.processes import AGAIN, DisturbedRun
from benchmarks.chaos.workload import make_config
from rlcore.records.files import append_rows, read_rows

KILLS_PER_RUN = 20
NUM_STEPS = 150
MEAN_S = 12.0
"""Mean seconds between two kills: some come in the middle of what the one before has brought about."""
_START_S = 600.0
"""Longest wait for the first step, and for a victim to be there."""
VICTIMS = (*ACTORS, "driver")


def run_kills(num_kills: int, work: Path, seed: int) -> list[dict[str, Any]]:
    """Makes the kills, and returns a row per run. What was done before in the folder `work` is not done
    again. Victims and waits follow from the seed; where in the run's work a kill comes is the machine's."""
    rng = random.Random(seed)
    plan = [
        {"victim": rng.choice(VICTIMS), "wait_s": round(rng.expovariate(1 / MEAN_S), 2)}
        for _ in range(num_kills)
    ]
    runs = [plan[start : start + KILLS_PER_RUN] for start in range(0, num_kills, KILLS_PER_RUN)]
    return [_run(part, work.resolve() / f"kills_{seed}_{number}", seed) for number, part in enumerate(runs)]


def _run(plan: Sequence[Mapping[str, Any]], folder: Path, seed: int) -> dict[str, Any]:
    whole = run_alone(folder.with_name(f"alone_{NUM_STEPS}_{seed}"), NUM_STEPS, seed)
    run = DisturbedRun(make_config(folder, staleness=0, num_steps=NUM_STEPS, seed=seed))
    notes, began = folder.with_suffix(".kills.jsonl"), time.monotonic()
    done = list(read_rows(notes)) if notes.exists() else []
    wrong = [each["problem"] for each in done if each["problem"]]
    try:
        run.start(*AGAIN)
        if not done:  # a start that is slow would take all the kills
            run.wait(lambda: run.steps() or not run.is_running, _START_S)
        for number, kill in enumerate(plan[len(done) :], len(done) + 1):
            struck = _kill(run, kill["victim"], kill["wait_s"])
            append_rows(notes, [{**kill, **struck}])
            done.append({**kill, **struck})
            where = f"after {kill['wait_s']:.1f} s, in {struck['phase']} of step {struck['step']}"
            told = f"{kill['victim']} {where} {struck['problem']}"
            print(f"{folder.name} [{number}/{len(plan)}] {told}", flush=True)
            wrong += [struck["problem"]] if struck["problem"] else []
        wrong += finish(run)
    finally:
        run.end()
    different = problems(run.folder, whole.folder, staleness=0, num_steps=NUM_STEPS)
    wrong += different
    for each in wrong:
        print(f"{folder.name}: {each}", flush=True)
    last = (run.steps() or [{}])[-1]
    return {
        "run": folder.name,
        "kills": len(done),
        "of_driver": sum(each["victim"] == "driver" for each in done),
        "learner_restarts": last.get("learner/restarts", 0),
        "seconds": round(time.monotonic() - began, 1),
        "weights_equal": not different,
        "problem": "; ".join(wrong),
    }


def _kill(run: DisturbedRun, victim: str, wait_s: float) -> dict[str, Any]:
    """Waits, kills, and starts a driver that was killed anew. Returns where the run was, and what went
    wrong."""
    time.sleep(wait_s)
    problem, status, tells, deadline = "", None, True, time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if not run.is_running:  # it has ended before the last kill
            problem = problem or (last_error(run) if run.driver.returncode else "")
            run.start(*AGAIN)
        if process := run.find(victim):
            status, tells = run.status(), run.has_witness()
            with suppress(psutil.NoSuchProcess):  # it died by itself, as a rank whose partner was killed
                process.kill()
                break
        time.sleep(0.05)
    else:
        problem = problem or f"there is no {victim}"
    if victim == "driver":
        run.wait(lambda: not run.is_running and (last_error(run) or not tells), DRIVER_S)
        problem = problem or (wrong_words(run, victim, "", "kill") if tells else "")
        run.go_on()
    phase, step = (status.phase, status.step) if status else ("start", None)
    return {"phase": phase, "step": step, "problem": problem}
