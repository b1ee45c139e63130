"""The page of all commands: what `--help` prints."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from unittest import mock

from emotion_task import cli as emotion
from rlcore import cli as rlcore


def page() -> str:
    """Returns the page."""
    lines = ["# Commands", "", "Written by `make pages` from the parsers; do not edit.", ""]
    with mock.patch.dict(os.environ, {"COLUMNS": "100"}):
        for parser in (rlcore.build_parser(), emotion.build_parser()):
            lines += [f"## {parser.prog}", "", *_help(parser)]
            for command in _commands(parser):
                lines += [f"### {command.prog}", "", *_help(command)]
    return "\n".join(lines)


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yields the commands of a parser, and theirs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command
                yield from _commands(command)


def _help(parser: argparse.ArgumentParser) -> list[str]:
    return ["```text", *(line.rstrip() for line in parser.format_help().rstrip().splitlines()), "```", ""]
