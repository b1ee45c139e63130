"""Serves a model over HTTP: `emotion serve`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from emotion_task.commands.shared import say
from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `serve` to the commands."""
    parser = commands.add_parser(
        "serve",
        parents=parents,
        help="answer over HTTP: recordings in; label, probabilities, checked reasoning and prosody out",
        description="Serves a model on Ray Serve and vLLM, with a page to record or drop a file at its "
        "address. docs/guides/serve.md lists the settings. Ctrl-C or SIGTERM lets requests finish and ends.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder or hub id")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as port=8080 replicas=2")
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="YAML of the settings; later ones win"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serves until it is told to end, and returns 0."""
    from emotion_task.serve.config import ServeConfig
    from rlcore.config.io import load
    from rlcore.errors import MissingDependencyError

    config = load(arguments.config, arguments.overrides, ServeConfig)
    try:
        from emotion_task.serve.app import serve_model
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"`emotion serve` needs {error.name}, which is not installed: pip install -e '.[serve]' in the "
            "project's folder"
        ) from error
    serve_model(arguments.model, config, say)
    return 0
