"""Trains a policy on preferences: `rlcore prefer`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rlcore.commands.shared import Commands, print_metrics


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `prefer` to the commands."""
    parser = commands.add_parser(
        "prefer",
        parents=parents,
        help="train a policy on preferred and rejected answers",
        description="Trains a policy by DPO, IPO or KTO on the rows of a file (docs/guides/preferences.md).",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in run_dir")
    parser.add_argument(
        "--overwrite", action="store_true", help="begin anew where run_dir holds a job, and delete that"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains, prints the last checkpoint's metrics and returns 0.

    Raises:
        StoppedError: a signal ended the job after a checkpoint.
    """
    from rlcore.config import load_config
    from rlcore.config.offline import PreferConfig

    config = load_config(arguments.config, arguments.overrides, PreferConfig)
    from rlcore.offline.prefer import prefer  # imports Ray: only once the configuration stands

    metrics = prefer(config, resume=arguments.resume, overwrite=arguments.overwrite)
    print_metrics(f"{config.run_dir}: finished", metrics)
    return 0
