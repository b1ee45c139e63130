"""Options and printing that several commands share."""

from __future__ import annotations

import argparse


def staged_options() -> argparse.ArgumentParser:
    """Returns `--config FILE ... key=value ...`, which every command that runs stages takes, as a parent of
    its parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help="later ones win")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as seed=1 run_dir=runs/b")
    return parser


def say(text: str) -> None:
    """Prints what a stage tells at once, also where the output is piped."""
    print(text, flush=True)
