"""What every benchmark prints and writes: a table, a JSON file with hardware and commit, one last line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlcore.bench.environment import environment
from rlcore.records.files import finite, write_json

Row = Mapping[str, float | int | str]


def parse_arguments(description: str) -> argparse.Namespace:
    """The arguments that every benchmark takes."""
    return argument_parser(description).parse_args()


def argument_parser(description: str) -> argparse.ArgumentParser:
    """`--quick`, `--json FILE` and `--gate`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a smaller workload")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--gate", action="store_true", help="exit with 1 where the stated goal is missed")
    return parser


def finish(name: str, rows: Sequence[Row], headline: Row, goals: Mapping[str, bool], arguments: Any) -> None:
    """Prints the table and, last, `name: key=value ...`; writes the JSON; ends the process where a goal is
    missed and `--gate` was given.

    Args:
        goals: goal in words to whether it was reached.
    """
    _print_table(rows)
    missed = [goal for goal, reached in goals.items() if not reached]
    for goal in missed:
        print(f"missed: {goal}")
    if arguments.json:
        result = {"benchmark": name, "rows": rows, "headline": headline, "missed": missed, **environment()}
        write_json(arguments.json, finite(result))
    print(f"{name}: " + " ".join(f"{key}={_format(value)}" for key, value in headline.items()), flush=True)
    if missed and arguments.gate:
        sys.exit(1)


def _format(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_table(rows: Sequence[Row]) -> None:
    names = list(rows[0])
    cells = [names, *([_format(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
