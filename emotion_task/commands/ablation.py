"""Trains and compares the variants of GRPO-PTR: `emotion ablation`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from emotion_task.commands.shared import say, staged_options
from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `ablation` to the commands."""
    parser = commands.add_parser(
        "ablation",
        parents=[staged_options(), *parents],
        help="base, SFT, GRPO and the variants of GRPO-PTR in one table",
        description="Runs the line up to the reward model, where it is not finished, then every variant of "
        "reinforcement learning, and writes run_dir/ablation/ablation.md, .json and .png. An interrupted "
        "command goes on where it stopped.",
    )
    parser.add_argument(
        "--variants", metavar="A,B", help="of base, sft, v2, v3, v4, v5, v6 (default: all of them)"
    )
    parser.add_argument(
        "--seeds", type=_numbers, default="0", metavar="N,M", help="of reinforcement learning (default: 0)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains what is missing, prints the table and returns 0."""
    from emotion_task.pipeline.ablation import VARIANTS, run_ablation

    table = run_ablation(
        arguments.config,
        arguments.overrides,
        variants=arguments.variants.split(",") if arguments.variants else tuple(VARIANTS),
        seeds=arguments.seeds,
        say=say,
    )
    print(f"{table.read_text(encoding='utf-8')}\n{table}")
    return 0


def _numbers(text: str) -> list[int]:
    """Reads whole numbers, separated by commas."""
    return [int(number) for number in text.split(",")]
