"""Tests what a model hears of prosody: `emotion perception`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `perception` to the commands."""
    parser = commands.add_parser(
        "perception",
        parents=parents,
        help="what a model hears of prosody, by attribute and emotion, with confidence intervals",
        description="Lets a model choose pitch, energy, rate, intonation and the stressed word of held-out "
        "recordings, and writes perception.json, perception.md and perception.png.",
    )
    parser.add_argument("--model", required=True, metavar="MODEL", help="folder or hub id")
    parser.add_argument("--before", metavar="MODEL", help="what it was trained from, to compare with")
    parser.add_argument("--manifest", required=True, metavar="FILE", help="annotated")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--form",
        default="single",
        help="single: a question an attribute (default); profile: one for pitch, energy, rate, intonation, "
        "gender: for models that were trained on `profile` alone",
    )
    parser.add_argument("--split", default="eval", help="of the manifest (default: eval)")
    parser.add_argument("--limit", type=int, metavar="N", help="so many, chosen by a hash of ids")
    parser.add_argument(
        "--samples",
        nargs="+",
        default=[],
        metavar="FILE",
        help="one run's samples.jsonl, or those of the runs before and after: adds the recall by emotion",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Asks the models, prints the report and returns 0."""
    from emotion_task.perception.hearing import write_perception

    models = {"before": arguments.before, "after": arguments.model}
    write_perception(
        arguments.manifest,
        models if arguments.before else {"model": arguments.model},
        arguments.out,
        form=arguments.form,
        split=arguments.split,
        limit=arguments.limit,
        samples=arguments.samples,
        seed=arguments.seed,
    )
    print((arguments.out / "perception.md").read_text(encoding="utf-8"))
    return 0
