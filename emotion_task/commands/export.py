"""Writes utterances with traces as a data set: `emotion export`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `export` to the commands."""
    parser = commands.add_parser(
        "export", parents=parents, help="write utterances with traces as a Hugging Face data set"
    )
    parser.add_argument("traces", metavar="FOLDER|MANIFEST", help="of `emotion cot`, or with traces")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--with-audio", action="store_true", help="put the recordings in (mind the licences)")
    parser.add_argument("--license", default="other", help="for the card, as the hub spells it")
    parser.add_argument("--name", default="EmotionCoT", help="of the data set (default: EmotionCoT)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Writes the data set, prints its counts by split and returns 0."""
    from emotion_task.cot.export import export_dataset

    exported = export_dataset(
        arguments.traces,
        arguments.out,
        with_audio=arguments.with_audio,
        license=arguments.license,
        name=arguments.name,
    )
    counts = ", ".join(f"{count} {split}" for split, count in exported.counts.items())
    print(f"{arguments.out}: {counts}")
    if exported.left_out:
        first = exported.left_out[0]["reason"]
        print(f"{arguments.out / 'left_out.jsonl'}: {len(exported.left_out)} left out, the first: {first}")
    return 0
