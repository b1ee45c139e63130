"""Makes the synthetic corpus: `emotion corpus`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `corpus` to the commands."""
    parser = commands.add_parser("corpus", parents=parents, help="make the synthetic corpus from a seed")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--num-train", type=int, default=4000, help="utterances to train on (default: 4000)")
    parser.add_argument("--num-eval", type=int, default=600, help="held-out utterances (default: 600)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Makes the corpus, prints its manifest and returns 0."""
    from emotion_task.corpora.synthetic import build_corpus

    manifest = build_corpus(
        arguments.out,
        num_train=arguments.num_train,
        num_eval=arguments.num_eval,
        seed=arguments.seed,
        num_workers=arguments.workers,
    )
    print(manifest)
    return 0
