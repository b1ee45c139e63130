"""Calibrates a reward model on held-out speakers: `emotion reward-report`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `reward-report` to the commands."""
    parser = commands.add_parser(
        "reward-report",
        parents=parents,
        help="calibrate a reward model on held-out speakers",
        description="Asks a reward model, and the model that it was made from, for the grades of responses "
        "whose grades are known, on recordings of the split `eval`, attacks both, and writes report.json, "
        "report.md and the reliability curves.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder or hub id of the reward model")
    parser.add_argument("--untrained", metavar="MODEL", help="what it was made from, to compare with")
    parser.add_argument("--manifest", required=True, metavar="FILE", help="annotated, with a split `eval`")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--samples", metavar="FILE", help="a run's samples.jsonl: its last held-out answers, graded by rules"
    )
    parser.add_argument("--per-utterance", type=int, default=2, help="responses to a recording (default: 2)")
    parser.add_argument("--limit", type=int, help="recordings (default: all)")
    parser.add_argument("--max-model-len", type=int, default=512, help="tokens of a question (default: 512)")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Calibrates the reward model, prints the report and returns 0."""
    from emotion_task.reward_model.calibration_report import write_calibration

    models = {"trained": arguments.model}
    if arguments.untrained is not None:
        models["untrained"] = arguments.untrained
    write_calibration(
        arguments.manifest,
        models,
        arguments.out,
        engine={"max_model_len": arguments.max_model_len},
        per_utterance=arguments.per_utterance,
        limit=arguments.limit,
        seed=arguments.seed,
        samples=arguments.samples,
    )
    print((arguments.out / "report.md").read_text(encoding="utf-8"))
    return 0
