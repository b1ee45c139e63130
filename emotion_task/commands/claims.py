"""Scores the claim finder on labelled passages: `emotion claims`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `claims` to the commands."""
    parser = commands.add_parser(
        "claims", parents=parents, help="precision and recall of the claim finder, by claim type"
    )
    parser.add_argument("file", metavar="FILE", help="JSONL of labelled passages (tests/data/claims.jsonl)")
    parser.add_argument("--split", help="only the passages of this split")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints precision, recall and number of claims by claim type, and returns 0."""
    from emotion_task.claims.labelled import read_labelled, score_finder

    rows = [row for row in read_labelled(arguments.file) if arguments.split in (None, row["split"])]
    print(f"{len(rows)} passages\n{'type':16}{'precision':>10}{'recall':>8}{'claims':>8}")
    for name, found in score_finder(rows).items():
        print(f"{name:16}{found.precision:10.3f}{found.recall:8.3f}{found.num_labelled:8d}")
    return 0
