"""Lists the versions that are installed: `rlcore version`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `version` to the commands."""
    parser = commands.add_parser("version", parents=parents, help="versions installed and tested")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints a line for each package and returns 0."""
    from rlcore.records.versions import TESTED, versions

    for package, version in versions().items():
        tested = f"   (tested with {TESTED[package]})" if package in TESTED else ""
        print(f"{package:<14}{version}{tested}")
    return 0
