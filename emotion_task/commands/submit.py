"""Runs a command of the line as a job of a Ray cluster: `emotion submit`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from emotion_task.commands.shared import staged_options
from rlcore.commands.shared import Commands, dry_run_option
from rlcore.commands.submit import add_job_options, submit

COMMANDS = ("quickstart", "sft", "reward-model", "ablation")
"""Commands that a job can run: those that go on where they were ended."""


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `submit`, with the commands that a job can run, to the commands."""
    group = commands.add_parser(
        "submit", parents=[], help="run quickstart, sft, reward-model or ablation as a job of a Ray cluster"
    )
    kinds = group.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        parser = kinds.add_parser(
            name,
            parents=[staged_options(), *parents, dry_run_option()],
            help=f"emotion {name}, as a job of the cluster that rl.cluster.job names",
            description=f"Runs `emotion {name}` as a job of the Ray cluster that rl.cluster.job names, shows "
            "its log, and ends with its exit code. Submitted again, it goes on where it was ended.",
        )
        add_job_options(parser)
        parser.set_defaults(run=run, command=name)
        if name == "ablation":
            parser.add_argument("--variants", metavar="A,B", help="as emotion ablation has it")
            parser.add_argument("--seeds", metavar="N,M", help="as emotion ablation has it")


def run(arguments: argparse.Namespace) -> int:
    """Submits the command and returns its exit code, or 0 at once with `--no-wait`."""
    from emotion_task.config import PipelineConfig
    from rlcore.submit.request import JobCommand, job_request

    asked = {f"--{name}": getattr(arguments, name, None) for name in ("variants", "seeds")}
    command = JobCommand(
        words=("python", "-m", "emotion_task.cli", arguments.command),
        flags=tuple(word for flag, value in asked.items() if value for word in (flag, value)),
        schema=PipelineConfig,
        run=lambda config: config.rl,
        section="rl.",
    )
    request = job_request(arguments.config, arguments.overrides, run_id=arguments.run_id, command=command)
    return submit(request, again=True, wait=not arguments.no_wait, dry_run=arguments.dry_run)
