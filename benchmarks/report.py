"""Prints and writes what every benchmark reports: a table, a JSON file with hardware and commit, one last
line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlcore.bench.machine import environment
from rlcore.records.files import finite, write_json

Row = Mapping[str, float | int | str]


def parse_arguments(description: str) -> argparse.Namespace:
    """Parses the arguments that every benchmark takes (`argument_parser`)."""
    return argument_parser(description).parse_args()


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser of `--quick`, `--json FILE` and `--gate`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a smaller workload")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--gate", action="store_true", help="exit with 1 where the stated goal is missed")
    return parser


def finish(
    name: str, rows: Sequence[Row], headline: Row, goals: Mapping[str, bool], arguments: argparse.Namespace
) -> None:
    """Prints the table and, last, `name: key=value ...`, and writes the JSON.

    The process ends with status 1 where a goal is missed and `--gate` was given.

    Args:
        rows: rows of the table; the first one's keys are the columns.
        headline: figures of the last line.
        goals: whether each goal, in words, was reached.
        arguments: arguments as `argument_parser` parses them.
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
