"""The matrix: chains of cells over few runs, each compared with a run that was left alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.chaos.cells import Cell, in_order
from benchmarks.chaos.chain import Outcome, row, run_cells, typical_seconds
from benchmarks.chaos.checks import first_difference, problems
from benchmarks.chaos.processes import DisturbedRun
from benchmarks.chaos.workload import make_config
from rlcore.records.files import append_rows, read_rows

_LONGEST_S = 1800.0
"""Longest that a run may take that is left alone."""


def run_matrix(cells: Sequence[Cell], work: Path, seed: int) -> list[dict[str, Any]]:
    """Strikes in the cells, those that the run survives in one run, the others in another; returns a row per
    cell. What was done before in the folder `work` is not done again."""
    rows: list[dict[str, Any]] = []
    for staleness in sorted({cell.staleness for cell in cells}):
        for name, ends_run in (("actors", False), ("ray", True)):
            chain = [cell for cell in cells if (cell.staleness, cell.ends_run) == (staleness, ends_run)]
            if chain:
                folder = work.resolve() / f"{name}_{staleness}"
                rows += _run_chain(in_order(chain), folder, staleness, seed)
    return rows


def _run_chain(cells: list[Cell], folder: Path, staleness: int, seed: int) -> list[dict[str, Any]]:
    num_steps = 10 + 3 * len(cells)  # a cell takes two, and waits for a save or an evaluation
    whole = run_alone(folder.parent / f"alone_{num_steps}", num_steps, seed)
    run = DisturbedRun(make_config(folder, staleness=staleness, num_steps=num_steps, seed=seed))
    notes = folder.with_suffix(".cells.jsonl")
    done = list(read_rows(notes)) if notes.exists() else []
    known = [(each["victim"], each["state"], each["signal"]) for each in done]
    left = [cell for cell in cells if (cell.victim, cell.state, cell.signal) not in known]

    def note(outcome: Outcome) -> None:
        done.append(row(outcome))
        append_rows(notes, [done[-1]])
        cell = f"{outcome.signal} {outcome.victim}, {outcome.state}, staleness {staleness}"
        told = f"{outcome.ended}, {outcome.seconds:.1f} s {outcome.problem}"
        print(f"[{len(done)}/{len(cells)}] {cell}: {told}", flush=True)

    try:
        wrong = run_cells(run, left, typical_seconds(whole), note, seed) if left else []
    finally:
        run.end()
    wrong += problems(run.folder, whole.folder, staleness=staleness, num_steps=num_steps)
    for each in wrong:
        print(f"{folder.name}: {each}", flush=True)
    if wrong:
        first = first_difference(run.folder, whole.folder) if staleness == 0 else None
        _blame(done, wrong, first)
    return done


def run_alone(folder: Path, num_steps: int, seed: int) -> DisturbedRun:
    """Returns a run of staleness 0 that nobody disturbed, and that has ended."""
    whole = DisturbedRun(make_config(folder, staleness=0, num_steps=num_steps, seed=seed))
    if not (folder / "summary.json").exists() or not (folder / "model").exists():
        print(f"{folder.name}: {num_steps} steps that nobody disturbs", flush=True)
        whole.start("--overwrite")
        try:
            if not whole.wait(lambda: not whole.is_running, _LONGEST_S) or whole.driver.returncode != 0:
                raise RuntimeError(f"the run that is left alone failed; {whole.log} says more")
        finally:
            whole.end()
    return whole


def _blame(done: list[dict[str, Any]], wrong: list[str], first: int | None) -> None:
    """Marks the last strike before the first step that differs; all strikes, where no step tells."""
    before = [each for each in done if first is not None and each["step"] < first]
    for each in before[-1:] or done:
        each |= {"ended": "failed", "problem": "; ".join(filter(None, [each["problem"], *wrong]))}
