"""Writes reasoning traces from a template: `emotion traces`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `traces` to the commands."""
    parser = commands.add_parser(
        "traces",
        parents=parents,
        help="write a reasoning trace for each annotated utterance, from a template",
    )
    parser.add_argument("manifest", metavar="MANIFEST")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the manifest with traces")
    parser.add_argument("--style", default="short", help="short (default) or long")
    parser.add_argument("--quote-rate", type=float, default=0.0, help="share that quotes the transcript")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Writes the traces, prints how many and returns 0."""
    import random
    from dataclasses import replace

    from emotion_task.cot.template import TemplateWriter
    from emotion_task.records import read_manifest, write_manifest

    writer = TemplateWriter(quote_rate=arguments.quote_rate, style=arguments.style)
    utterances = read_manifest(arguments.manifest)
    traced = [
        replace(utterance, trace=writer.write(utterance, random.Random(f"{arguments.seed}/{utterance.id}")))
        for utterance in utterances
    ]
    write_manifest(arguments.out, traced)
    num_written = sum(utterance.trace is not None for utterance in traced)
    print(f"{arguments.out}: {num_written} traces for {len(traced)} utterances")
    return 0
