"""Writes the page of one or more runs: `rlcore report`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.commands.shared import Commands

MAX_SAMPLES = 10_000


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `report` to the commands."""
    parser = commands.add_parser(
        "report", parents=parents, help="write a run's page: one HTML file that needs no network"
    )
    parser.add_argument("folders", metavar="RUN", nargs="+", help="folder of a run; two stand side by side")
    parser.add_argument("--out", metavar="FILE", help="the page (default: report.html in the first folder)")
    parser.add_argument(
        "--samples",
        type=int,
        default=MAX_SAMPLES,
        metavar="N",
        help=f"samples of each run at most (default: {MAX_SAMPLES:,})",
    )
    parser.add_argument(
        "--sounds",
        type=int,
        default=0,
        metavar="N",
        help="recordings that become part of the page (default: none)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Writes the page, prints where it lies, and returns 0."""
    from rlcore.report.page import write_page
    from rlcore.report.run_data import Run

    runs = [Run(folder, max_samples=max(0, arguments.samples)) for folder in arguments.folders]
    path = Path(arguments.out) if arguments.out else runs[0].folder / "report.html"
    write_page(path, runs, num_sounds=max(0, arguments.sounds))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB (open it in a browser)")
    return 0
