"""Shows a configuration as a run would read it: `rlcore config show`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from rlcore.commands.shared import Commands


def add_parser(
    commands: Commands,
    parents: Sequence[argparse.ArgumentParser],
    run: Callable[[argparse.Namespace], int] | None = None,
) -> None:
    """Adds `config`, with its command `show`, to the commands. `parents` have `--config` and the settings;
    `run` shows another schema's."""
    config = commands.add_parser("config", parents=[], help="look at a configuration without a run")
    kinds = config.add_subparsers(required=True, metavar="COMMAND")
    text = (
        "all settings as a run would read them, and where each comes from (a file, key=value, or the default)"
    )
    show = kinds.add_parser("show", parents=parents, help=text, description=f"Prints {text}, as YAML.")
    show.add_argument("--set", action="store_true", help="leave out what has its default")
    show.set_defaults(run=run or run_show)


def run_show(arguments: argparse.Namespace) -> int:
    """Prints the configuration of a run and returns 0."""
    from rlcore.config import RunConfig

    return show(arguments, RunConfig)


def show(arguments: argparse.Namespace, schema: type) -> int:
    """Prints a configuration of any schema and returns 0."""
    from rlcore.config import load_config
    from rlcore.config.origins import annotated_yaml

    config: object = load_config(arguments.config, arguments.overrides, schema)
    print(annotated_yaml(config, arguments.config, arguments.overrides, only_set=arguments.set), end="")
    return 0
