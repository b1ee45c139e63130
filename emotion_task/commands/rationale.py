"""Tests whether a model's label rests on its reasoning: `emotion rationale`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `rationale` to the commands."""
    parser = commands.add_parser(
        "rationale",
        parents=parents,
        help="whether the label rests on the reasoning: what it does when the claims are swapped",
        description="Forces a model's own reasoning upon it with the claims, or the recording, of another "
        "emotion, lets it write the label anew, and writes rationale.json, rationale.md and answers.jsonl. "
        "Eleven requests an answer.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder or hub id")
    parser.add_argument(
        "--manifest", required=True, metavar="FILE", help="annotated, with splits `train` and `eval`"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--labels",
        nargs="+",
        metavar="LABEL",
        help="options (default: those that the model was trained with)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="so many, chosen by a hash of ids")
    parser.add_argument(
        "--max-tokens", type=int, default=256, metavar="N", help="longest answer (default: 256)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of donors, wording and bootstrap (default: 0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Asks the model, prints the report and returns 0."""
    from emotion_task.rationale.report import write_rationale

    write_rationale(
        arguments.manifest,
        arguments.model,
        arguments.out,
        labels=arguments.labels,
        limit=arguments.limit,
        max_tokens=arguments.max_tokens,
        seed=arguments.seed,
    )
    print((arguments.out / "rationale.md").read_text(encoding="utf-8"))
    return 0
