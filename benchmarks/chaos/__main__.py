"""Strikes in every cell of the matrix of faults, or kills at random, and compares with a run left alone.

    python -m benchmarks.chaos                    # the matrix; hours
    python -m benchmarks.chaos --quick            # each victim once, and each state once
    python -m benchmarks.chaos --kills 100        # random victims at random moments

What is done lies in the working folder; the same command goes on there.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.chaos.cells import STATES, VICTIMS, Cell, all_cells
from benchmarks.chaos.matrix import run_matrix
from benchmarks.report import argument_parser


def main() -> None:
    parser = argument_parser(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--work", type=Path, default=Path("runs/chaos"), help="folder of the runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kills", type=int, default=0, help="kill at random, this often, in place of the matrix"
    )
    parser.add_argument("--staleness", type=int, choices=(0, 1), help="one half of the matrix")
    parser.add_argument("--victim", action="append", choices=VICTIMS, help="only these rows of the matrix")
    parser.add_argument("--state", action="append", choices=list(STATES), help="only these columns")
    parser.add_argument("--signal", choices=("kill", "stop"), help="only these strikes")
    arguments = parser.parse_args()
    # Whoever ends this command ends the run that it has under way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    levels = (0, 1) if arguments.staleness is None else (arguments.staleness,)
    cells = [cell for staleness in levels for cell in all_cells(staleness) if wanted(cell, arguments)]
    rows = run_matrix(cells, arguments.work, arguments.seed)
    print(rows)


def wanted(cell: Cell, arguments: argparse.Namespace) -> bool:
    """Says whether a cell is among those asked for."""
    victims, states = arguments.victim or VICTIMS, arguments.state or STATES
    is_signal = arguments.signal in (None, cell.signal)
    return is_signal and cell.victim in victims and cell.state in states


if __name__ == "__main__":
    main()
