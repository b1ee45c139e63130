"""Measures this machine on fixed workloads: `rlcore bench` and `rlcore bench compare`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlcore.commands.shared import Commands
from rlcore.records.files import write_json

if TYPE_CHECKING:
    from rlcore.bench.compare import Change
    from rlcore.bench.suite import Row


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `bench`, with its command `compare`, to the commands."""
    bench = commands.add_parser(
        "bench", parents=parents, help="speed, memory and share of the ceilings on fixed workloads"
    )
    bench.add_argument("--workload", action="append", default=[], metavar="NAME", help="default: all of them")
    bench.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="YAML laid over the workload's settings"
    )
    bench.add_argument("--steps", type=int, default=8, metavar="N", help="counted ones (default 8)")
    bench.add_argument("--json", metavar="FILE", help="write the results there")
    bench.set_defaults(run=run)
    kinds = bench.add_subparsers(metavar="COMMAND")
    compare = kinds.add_parser("compare", parents=parents, help="two results; 1 where one measure is worse")
    compare.add_argument("before", metavar="BEFORE.json")
    compare.add_argument("after", metavar="AFTER.json")
    compare.add_argument(
        "--threshold", type=float, default=0.1, metavar="SHARE", help="how much worse counts (default 0.1)"
    )
    compare.set_defaults(run=run_compare)


def run(arguments: argparse.Namespace) -> int:
    """Measures the workloads, prints each as it is done, writes the results, and returns 0."""
    from rlcore.bench.suite import run_workloads

    result = run_workloads(
        arguments.workload,
        files=arguments.config,
        num_steps=arguments.steps,
        on_row=lambda row: print(describe(row), flush=True),
    )
    if arguments.json:
        write_json(Path(arguments.json), result)
    return 0


def run_compare(arguments: argparse.Namespace) -> int:
    """Prints every measure of two results; returns 1 where one is worse than the threshold, else 0.

    Raises:
        DataError: a file is no result of `rlcore bench`, or they share no workload.
    """
    from rlcore.bench.compare import compare

    changes, warnings = compare(arguments.before, arguments.after)
    width, threshold = max(len(change.name) for change in changes), arguments.threshold
    for change in changes:
        mark = "  WORSE" if change.loss > threshold else ""
        print(
            f"{change.name:<{width}}  {change.before:>10.4g} {change.after:>10.4g}  {_signed(change)}{mark}"
        )
    for warning in warnings:
        print(f"note: {warning}")
    worse = sum(change.loss > threshold for change in changes)
    print(f"{worse} of {len(changes)} measures are worse by more than {threshold:.0%}")
    return 1 if worse else 0


def describe(row: Row) -> str:
    """Returns what was measured on one workload as lines for a terminal."""
    seconds = ", ".join(f"{phase} {value:.3f}" for phase, value in row["seconds"].items())
    peaks = ", ".join(f"{process} {peak:.0f}" for process, peak in sorted(row["peak_mb"].items()))
    lines = [
        f"{row['name']}: {row['samples_per_second']:.1f} samples/s, {row['tokens_per_second']:.0f} tokens/s",
        f"  step {row['step_seconds']:.3f} s: {seconds}",
        f"  peak MB: {peaks}",
    ]
    lines += [
        f"  {one['phase']:<12} {one['work']:8.3g} in {one['seconds']:.3f} s: {one['rate']:8.3g} of "
        f"{one['ceiling']:.3g} {one['unit']}, {one['share']:.1%}"
        for one in row["roofline"]
    ]
    return "\n".join(lines)


def _signed(change: Change) -> str:
    return f"{change.after / change.before - 1:+7.1%}" if change.before else "    new"
