"""Runs the line as a whole or in part: `emotion quickstart`, `emotion sft`, `emotion reward-model`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emotion_task.commands.shared import say, staged_options
from rlcore.commands.shared import Commands, dry_run_option, print_metrics
from rlcore.records.progress import tell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from emotion_task.pipeline.summary import FinalReport

_WIDEST = 400
"""Characters that a table may ask for."""


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `sft`, `reward-model` and `quickstart` to the commands."""
    parents = [staged_options(), *parents]
    for name, until, text in (
        ("sft", "cold_start", "prosody SFT, with the stages before it"),
        ("reward-model", "reward_model", "the reasoning reward model, with the stages before it"),
        ("quickstart", None, "the whole line: corpus, annotation, SFT, reward model, GRPO-PTR, report"),
    ):
        parser = commands.add_parser(name, parents=[*parents, dry_run_option()], help=text)
        parser.set_defaults(run=run, until=until)


def run(arguments: argparse.Namespace) -> int:
    """Runs the line up to the command's stage, prints the stage's result or the final report, and returns 0.
    With `--dry-run` only what it would run is printed."""
    tell(f"reading {', '.join(arguments.config)}")
    from emotion_task.config import PipelineConfig
    from emotion_task.pipeline.line import Pipeline
    from rlcore.config import load_config

    config = load_config(arguments.config, arguments.overrides, schema=PipelineConfig)
    pipeline = Pipeline(config, say)
    if arguments.dry_run:
        print(pipeline.prospect(arguments.until))
    elif arguments.until is None:
        print_report(pipeline.finish())
    else:
        result = pipeline.run(until=arguments.until)
        print_metrics(f"{config.run_dir}: {arguments.until} finished", result.as_json())
    return 0


def print_report(report: FinalReport) -> None:
    """Prints the final table, and where the files lie."""
    from emotion_task.evaluation.table import result_table

    print_wide(result_table(report.rows, report.title))
    if report.perception_gain is not None:
        value, low, high = (100 * report.perception_gain[name] for name in ("value", "low", "high"))
        print(f"\nprosody perception, SFT over base: {value:+.1f} points [{low:+.1f}, {high:+.1f}]")
    print(f"\n{report.report}\n{report.summary}")
    print(f"curves: {report.rl_dir / 'plots'}")
    print(f"its page, with samples to hear and read: rlcore report {report.rl_dir}")
    print(f"explain a recording: emotion explain AUDIO --model {report.model}")


def print_wide(table: Table, console: Console | None = None) -> None:
    """Prints a table. Ten columns need room, so a narrow terminal is not folded but run over."""
    from rich.console import Console
    from rich.measure import Measurement

    console = console or Console()
    needed = Measurement.get(console, console.options.update(width=_WIDEST), table).maximum
    console.width = max(console.width, needed)
    console.print(table, crop=False)
