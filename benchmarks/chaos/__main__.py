"""Strikes in every cell of the matrix of faults, or kills at random, and compares with a run left alone.

    python -m benchmarks.chaos                    # the matrix, about two hours on two idle cores
    python -m benchmarks.chaos --quick            # a third of it, at staleness 0
    python -m benchmarks.chaos --kills 100        # random victims at random moments

What is done lies in the working folder, and the same command goes on there.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

from benchmarks.chaos.cells import STATES, VICTIMS, Cell, all_cells
from benchmarks.chaos.matrix import run_matrix
from benchmarks.chaos.page import write_matrix
from benchmarks.chaos.random_kills import run_kills
from benchmarks.report import argument_parser, finish

SLOWEST_S = 222.0
"""Seconds that NeMo-RL publishes until a run whose idle engine died ends with an error."""


def main() -> None:
    """Runs the command."""
    parser = argument_parser(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--work", type=Path, default=Path("runs/chaos"), help="folder of the runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0, help="kill at random, this often, and no matrix")
    parser.add_argument("--staleness", type=int, choices=(0, 1), help="one half of the matrix")
    parser.add_argument("--victim", action="append", choices=VICTIMS, help="only these rows of the matrix")
    parser.add_argument("--state", action="append", choices=list(STATES), help="only these columns")
    parser.add_argument("--signal", choices=("kill", "stop"), help="only these strikes")
    parser.add_argument("--page", type=Path, help="also write the matrix into this page")
    arguments = parser.parse_args()
    # Whoever ends this command ends the run that it has under way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    load = {"load": round(os.getloadavg()[0], 1)}
    if arguments.kills:
        report_kills(run_kills(arguments.kills, arguments.work, arguments.seed), load, arguments)
    else:
        cells = [cell for staleness in (0, 1) for cell in all_cells(staleness) if is_wanted(cell, arguments)]
        if not cells:
            parser.error(
                "no cell of the matrix is all of that; give fewer of --quick, --victim, --state, ..."
            )
        report_matrix(run_matrix(cells, arguments.work, arguments.seed), load, arguments)


def is_wanted(cell: Cell, arguments: argparse.Namespace) -> bool:
    """Says whether a cell is among those asked for."""
    if arguments.quick:
        diagonal = VICTIMS.index(cell.victim) + list(STATES).index(cell.state)
        if cell.staleness or cell.signal == "stop" or diagonal % 3:
            return False
    return (
        cell.victim in (arguments.victim or VICTIMS)
        and cell.state in (arguments.state or STATES)
        and arguments.signal in (None, cell.signal)
        and arguments.staleness in (None, cell.staleness)
    )


def report_matrix(rows: list[dict[str, Any]], load: dict[str, float], arguments: argparse.Namespace) -> None:
    """Prints the cells and writes what was asked for."""
    failed = [row for row in rows if row["ended"] == "failed"]
    headline = {
        "cells": len(rows),
        "failed": len(failed),
        "recovery_median_s": _median([row["seconds"] for row in rows if row["ended"] == "recovered"]),
        "error_median_s": _median([row["seconds"] for row in rows if row["ended"] == "error"]),
        "slowest_s": max(row["seconds"] for row in rows),
        **load,
    }
    if arguments.page:
        write_matrix(rows, arguments.page)
    goals = {
        "no cell failed": not failed,
        f"every cell within {SLOWEST_S:g} s": headline["slowest_s"] <= SLOWEST_S,
    }
    finish("chaos", rows, headline, goals, arguments)


def report_kills(rows: list[dict[str, Any]], load: dict[str, float], arguments: argparse.Namespace) -> None:
    """Prints the runs and writes what was asked for."""
    headline = {
        "kills": sum(row["kills"] for row in rows),
        "of_driver": sum(row["of_driver"] for row in rows),
        "runs": len(rows),
        "runs_equal": sum(row["weights_equal"] for row in rows),
        "minutes": sum(row["seconds"] for row in rows) / 60,
        **load,
    }
    finish("chaos_kills", rows, headline, {"all runs equal": headline["runs_equal"] == len(rows)}, arguments)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


if __name__ == "__main__":
    main()
