"""Measures which errors a policy makes: `emotion policy-errors`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `policy-errors` to the commands."""
    parser = commands.add_parser(
        "policy-errors",
        parents=parents,
        help="measure which errors a policy makes, by kind of claim",
        description="Compares the answers of a run's samples.jsonl with what was measured, and prints how "
        "often each error occurs: levels one step off, opposite, left out or left open, emotions that the "
        "claims do not support, and faults of form.",
    )
    parser.add_argument("samples", metavar="SAMPLES", help="samples.jsonl of a run")
    parser.add_argument("--manifest", required=True, metavar="FILE", help="annotated, with a split `train`")
    parser.add_argument(
        "--split", default="train", help="split of the answers (default: train, the rollouts)"
    )
    parser.add_argument("--step", type=int, help="answers of this step alone (0: the model before the first)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON of the same rates")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measures the errors, prints them and returns 0."""
    from emotion_task.claims.support import learn_table
    from emotion_task.records import read_manifest
    from emotion_task.reward_model.error_rates import as_json, as_markdown, measure_errors
    from rlcore.errors import DataError
    from rlcore.records.files import write_json
    from rlcore.rewards.samples import read_groups

    by_id = {utterance.id: utterance for utterance in read_manifest(arguments.manifest)}
    answers = [
        (by_id[group.prompt.id], completion.text)
        for row, group in read_groups(arguments.samples)
        if row["split"] == arguments.split
        and arguments.step in (None, row["step"])
        and group.prompt.id in by_id
        for completion in group.completions
    ]
    if not answers:
        of_step = "" if arguments.step is None else f", step {arguments.step}"
        raise DataError(
            f"{arguments.samples}: no answer (split {arguments.split!r}{of_step}) to an utterance of "
            f"{arguments.manifest}"
        )
    train = [utterance for utterance in by_id.values() if utterance.split == "train"]
    rates = measure_errors(answers, learn_table(train))
    if arguments.out is not None:
        write_json(arguments.out, as_json(rates))
    print(as_markdown(rates))
    return 0
