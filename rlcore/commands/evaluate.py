"""Measures a policy on the held-out prompts: `rlcore evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rlcore.commands.shared import Commands, print_metrics
from rlcore.records.progress import tell


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `evaluate` to the commands."""
    parser = commands.add_parser(
        "evaluate", parents=parents, help="greedy answers on the held-out prompts, with their metrics"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluates the policy at `model.path`, prints its metrics and returns 0."""
    tell(f"reading {', '.join(arguments.config)}")
    from rlcore.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    tell(f"{config.model.path}: loading Ray and PyTorch")
    from rlcore.run import evaluate  # imports Ray: only once the configuration stands

    metrics = evaluate(config)
    print_metrics(f"{config.model.path}: held-out prompts, recorded in {config.run_dir}/eval", metrics)
    return 0
