"""Writes a tiny random checkpoint to try things with: `emotion tiny-model`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `tiny-model` to the commands."""
    from emotion_task.models.tiny import ARCHITECTURES

    parser = commands.add_parser(
        "tiny-model",
        parents=parents,
        help="a 1M-parameter speech LLM that knows nothing yet, to try data and settings on two cores",
        description="Writes a checkpoint of a real architecture with random weights, its tokenizer made from "
        "the given texts. A run from there shows that data, rewards and settings fit each other, no more.",
    )
    parser.add_argument("out", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--texts", type=Path, required=True, metavar="FILE", help="its words make the tokenizer: your data"
    )
    parser.add_argument(
        "--architecture", default="qwen2_audio", help=f"{', '.join(ARCHITECTURES)} (default: the first)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Writes the model, prints its folder and returns 0."""
    from emotion_task.models.tiny import TinyModelConfig, build_tiny_model
    from rlcore.errors import ConfigError
    from rlcore.records.files import open_text

    if arguments.out.exists():
        raise ConfigError(f"{arguments.out}: is there already; name another folder, or delete it")
    with open_text(arguments.texts) as lines:
        texts = list(lines)
    print(build_tiny_model(arguments.out, texts, TinyModelConfig(architecture=arguments.architecture)))
    return 0
