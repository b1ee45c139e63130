"""Trains a policy: `rlcore train`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rlcore.commands.shared import Commands, dry_run_option, run_dir_options
from rlcore.errors import StoppedError
from rlcore.records.progress import duration, tell

MAX_NAME = 60
"""Characters of a metric's name that are shown."""


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
    tell(f"reading {', '.join(arguments.config)}")
    from rlcore.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    tell(f"{config.run_dir}: {config.train.num_steps} steps; loading Ray and PyTorch")
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
    print("\n".join(summary_lines(config.run_dir, summary)))
    return 0


def summary_lines(run_dir: str, summary: Mapping[str, Any]) -> list[str]:
    """Returns what a finished run says last, in lines of at most 100 characters, folders' names apart: the
    held-out metrics before and after, the headline first, and where the rest is."""
    before, after = summary.get("before") or {}, summary.get("after") or {}
    took = duration(summary.get("seconds") or 0.0)
    head = "".join(
        f", {name} {before[name]:.3f} before and {value:.3f} after"
        for name, value in islice(after.items(), 1)
        if name in before
    )
    lines = [f"{run_dir}: finished{head}", f"  {summary.get('steps')} steps, {took}"]
    # Parts of a metric, named with a slash, are in summary.json.
    shown = [name for name in after if "/" not in name.removeprefix("reward/")]
    if shown:
        width = min(MAX_NAME, max(16, *map(len, shown)))
        lines.append(f"  {'held-out prompts':<{width}}  {'before' if before else '':>9}  {'after':>9}")
        for name in shown:
            values = f"{_number(before.get(name)):>9}  {_number(after[name]):>9}"
            lines.append(f"  {name[:MAX_NAME]:<{width}}  {values}")
    if share := summary.get("completion_truncated"):
        lines.append(f"  {share:.1%} of the training answers were cut at the token limit")
    lines += [f"  model    {summary.get('model')}", f"  all      {Path(run_dir) / 'summary.json'}"]
    return [*lines, f"  page     rlcore report {shlex.quote(run_dir)}"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
