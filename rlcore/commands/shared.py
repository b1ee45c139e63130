"""Parts that several commands share: their common options, and the listing of metrics."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Protocol


class Commands(Protocol):
    """The commands of a parser, to which each command's file adds its own."""

    def add_parser(
        self,
        name: str,
        *,
        parents: Sequence[argparse.ArgumentParser],
        help: str,
        description: str | None = None,
    ) -> argparse.ArgumentParser:
        """Adds a command and returns its parser."""
        ...


def debug_option() -> argparse.ArgumentParser:
    """Returns the option of every command, `--debug`, as a parent of its parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def config_options() -> argparse.ArgumentParser:
    """Returns `--config FILE ... key=value ...` as a parent of a command's parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--config",
        action="append",
        required=True,
        metavar="FILE",
        help="YAML file; may be given several times, later files win",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="single settings, for instance learner.lr=1e-5"
    )
    return parser


def run_dir_options() -> argparse.ArgumentParser:
    """Returns `--resume`, `--accept-changes` and `--overwrite`, what becomes of a run that lies in `run_dir`,
    as a parent of a command's parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in run_dir")
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="with --resume: go on with settings that were others, such as learner.lr, and record them",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="begin anew where run_dir holds a run, and delete that; with --resume only where it has no "
        "checkpoint",
    )
    return parser


def print_metrics(title: str, metrics: Mapping[str, object]) -> None:
    """Prints names and values in two columns; names inside nested mappings are dotted."""
    rows = dict(_flat(metrics))
    width = max(map(len, rows), default=0)
    print(title)
    for name, value in rows.items():
        print(f"  {name:<{width}}  {f'{value:.4g}' if isinstance(value, float) else value}")


def _flat(metrics: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in metrics.items():
        rows += (
            _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
        )
    return rows
