"""Options and printing that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"
"""Folder of the configurations that come with the package."""


def staged_options() -> argparse.ArgumentParser:
    """Returns `--config FILE ... key=value ...`, which every command that runs stages takes, as a parent of
    its parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--config",
        action="append",
        required=True,
        type=config_file,
        metavar="FILE",
        help="YAML file, or the name of one that comes with the package, such as quickstart, small or "
        "ablations/v2; later ones win",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as seed=1 run_dir=runs/b")
    return parser


def config_file(name: str) -> str:
    """Returns the path of a configuration: a file of the user's, else one of the package by its name."""
    packaged = CONFIGS / f"{name}.yaml"
    return name if Path(name).is_file() or not packaged.is_file() else str(packaged)


def say(text: str) -> None:
    """Prints what a stage tells at once, also where the output is piped."""
    print(text, flush=True)
