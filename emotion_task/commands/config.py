"""Shows the configuration of the line as a run would read it: `emotion config show`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from emotion_task.commands.shared import staged_options
from rlcore.commands import config
from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `config`, with its command `show`, to the commands."""
    config.add_parser(commands, [staged_options(), *parents], run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the configuration of the line and returns 0."""
    from emotion_task.config import PipelineConfig

    return config.show(arguments, PipelineConfig)
