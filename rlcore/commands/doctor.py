"""Looks at the machine and says what is wrong and what to do about it: `rlcore doctor`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlcore.commands.shared import Commands

if TYPE_CHECKING:
    from rlcore.commands.machine_checks import Check


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `doctor` to the commands."""
    parser = commands.add_parser("doctor", parents=parents, help="what is wrong here, and what to do")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs every check and returns the exit code of `examine`."""
    from rlcore.commands.machine_checks import CHECKS

    return examine(CHECKS)


def examine(checks: Sequence[Check]) -> int:
    """Runs the checks, prints a line for each finding, and returns 1 if any failed, else 0."""
    failed = warned = 0
    for check in checks:
        for finding in check():
            failed += finding.status == "fail"
            warned += finding.status == "warn"
            print(f"{finding.status:<5} {finding.subject:<14} {finding.detail}", flush=True)
            if finding.advice:
                print(f"{'':<20} -> {finding.advice}", flush=True)
    print(f"{failed} failed, {warned} warnings")
    return 1 if failed else 0
