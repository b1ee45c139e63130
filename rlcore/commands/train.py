"""Trains a policy: `rlcore train`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from rlcore.commands.shared import Commands, dry_run_option, print_metrics, run_dir_options
from rlcore.errors import StoppedError


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `train` to the commands."""
    parents = [*parents, run_dir_options(), dry_run_option()]
    parser = commands.add_parser("train", parents=parents, help="train a policy with rewards")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains, prints the run's summary and returns 0. With `--dry-run` it only looks for mistakes.

    Raises:
        StoppedError: a signal ended the run after a checkpoint.
    """
    from rlcore.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    from rlcore.run import check, train  # imports Ray: only once the configuration stands

    asked = {name: getattr(arguments, name) for name in ("resume", "overwrite", "accept_changes")}
    if arguments.dry_run:
        task, prompts = check(config, **asked)
        print(
            f"{config.run_dir}: nothing speaks against it; nothing was started. {len(prompts)} prompts to "
            f"train on, {len(task.prompts('eval'))} held out; {config.train.num_steps} steps of "
            f"{config.train.prompts_per_step}"
        )
        return 0
    summary = train(config, **asked)
    if summary["stopped_by"] is not None:
        raise StoppedError(
            f"stopped by {summary['stopped_by']} after step {summary['steps']}; its checkpoint is in "
            f"{config.run_dir}. The same command with --resume goes on from there"
        )
    print_metrics(f"{config.run_dir}: finished{_headline(summary)}", summary)
    return 0


def _headline(summary: Mapping[str, Any]) -> str:
    """Returns the task's first metric, before and after."""
    before, after = summary.get("before", {}), summary.get("after", {})
    return "".join(
        f", {name} {before[name]:.3f} before and {value:.3f} after"
        for name, value in islice(after.items(), 1)
        if name in before
    )
