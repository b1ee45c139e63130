"""Explains one recording: `emotion explain`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `explain` to the commands."""
    parser = commands.add_parser(
        "explain", parents=parents, help="reasoning, label and measured prosody of a recording"
    )
    parser.add_argument("audio", metavar="AUDIO")
    parser.add_argument(
        "--model", default="runs/quickstart/rl/model", help="folder or hub id (default: the quickstart's)"
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help="cut points of low/normal/high (default: those beside the model)",
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        metavar="LABEL",
        help="options (default: those that the model was trained with)",
    )
    parser.add_argument("--text", help="transcript; without it the rate gets no level")
    parser.add_argument("--gender", choices=("male", "female"), help="without it the pitch gets no level")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the model's reasoning and label beside the measured prosody, and returns 0."""
    from emotion_task.explain import explain

    print(
        explain(
            arguments.audio,
            model_path=arguments.model,
            calibration=arguments.calibration,
            labels=arguments.labels,
            text=arguments.text,
            gender=arguments.gender,
        )
    )
    return 0
