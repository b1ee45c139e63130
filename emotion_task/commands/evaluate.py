"""Measures models on benchmarks: `emotion evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `evaluate` to the commands."""
    parser = commands.add_parser(
        "evaluate",
        parents=parents,
        help="a model's figures on public benchmarks and emotion corpora, with confidence intervals",
        description="Asks models the questions of benchmarks in their owners' files, and writes "
        "evaluation.md, evaluation.json and every answer. The same command goes on where it was stopped.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder or hub id")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as rollout.num_gpus=1")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="MODEL",
        help="another model, compared with the first question by question; may be given several times",
    )
    parser.add_argument(
        "--benchmark",
        action="append",
        required=True,
        metavar="NAME",
        help="mmau, mmar, mmsu, daily_omni, emobox, a corpus of `emotion annotate`, or module:NAME; may be "
        "given several times, each with its --data",
    )
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="FOLDER",
        help="the owner's files, or a list of them",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--style",
        default="think",
        help="think: the prompt of this project's training (default); plain: the owner's, without a system "
        "turn; emotionthinker: that of the published EmotionThinker; or module:NAME",
    )
    parser.add_argument(
        "--split", default="eval", help="of a corpus: eval, what its reader holds out (default), or all"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="so many of each set, by a hash of ids")
    parser.add_argument(
        "--at-once",
        type=int,
        default=256,
        metavar="N",
        help="questions that the engines get together (default: 256); 1 measures one answer's latency",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="YAML of `rollout`, `cluster`, `model`"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Asks the models, prints the report and returns 0."""
    from emotion_task.benchmarks.asking.evaluate import evaluate_benchmarks
    from rlcore.errors import ConfigError

    names, folders = arguments.benchmark, arguments.data
    if len(names) != len(folders):
        raise ConfigError(f"--data: got {len(folders)} for {len(names)} --benchmark; each has one")
    evaluate_benchmarks(
        [arguments.model, *arguments.compare],
        [
            {"benchmark": name, "data": data, "split": arguments.split}
            for name, data in zip(names, folders, strict=True)
        ],
        arguments.out,
        style=arguments.style,
        limit=arguments.limit,
        at_once=arguments.at_once,
        seed=arguments.seed,
        configs=arguments.config,
        overrides=arguments.overrides,
    )
    print((arguments.out / "evaluation.md").read_text(encoding="utf-8"))
    return 0
