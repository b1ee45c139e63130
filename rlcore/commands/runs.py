"""Lists runs with their state and headline: `rlcore runs`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `runs` to the commands."""
    parser = commands.add_parser("runs", parents=parents, help="list runs with their state and headline")
    parser.add_argument(
        "folders", metavar="FOLDER", nargs="*", default=["runs"], help="where to look (default: runs)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints a line for each run below the folders, the newest last, and returns 0."""
    from rlcore.report.listing import listed

    lines = listed([Path(folder) for folder in arguments.folders])
    if not lines:
        print(f"no runs below {', '.join(arguments.folders)}")
    for line in _columns([("run", "state", "steps", "headline", "last row"), *lines] if lines else []):
        print(line)
    return 0


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
