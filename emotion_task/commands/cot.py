"""Lets a language model write reasoning traces: `emotion cot`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `cot` to the commands."""
    parser = commands.add_parser(
        "cot",
        parents=parents,
        help="let a language model write a checked reasoning trace for each annotated utterance",
        description="Asks an OpenAI-compatible endpoint for traces, checks each, and writes manifest.jsonl "
        "(accepted), rejected.jsonl (with reasons) and statistics.json. Run again, it goes on where it "
        "stopped and asks for nothing twice. Settings (emotion_task.cot.generate.CotConfig): model=NAME "
        "base_url=http://localhost:8000/v1 concurrency=16 price.input=0.15 price.output=0.6 max_usd=20 "
        "attempts=2 min_words=50 max_words=200 temperature=0.9 extra.reasoning_effort=low ...",
    )
    parser.add_argument("manifest", metavar="MANIFEST")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings; model is required")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="settings as YAML")
    parser.add_argument("--limit", type=int, metavar="N", help="so many utterances, chosen by a hash of ids")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Asks for the traces, prints how many passed and what they cost, and returns 0.

    Raises:
        EndpointError: the endpoint answered none of the requests.
    """
    from emotion_task.cot.generate import CotConfig, EndpointError, generate
    from emotion_task.cot.request import asked_of
    from emotion_task.records import choose, read_manifest
    from rlcore.config import load_config

    config = load_config(arguments.config, arguments.overrides, schema=CotConfig)
    listed = read_manifest(arguments.manifest)
    report = generate(choose(listed, arguments.limit), arguments.out, config)
    cost = f", {report.cost_usd:.2f} USD in all" if config.price else ""
    print(
        f"{report.manifest}: {report.num_accepted} traces for {report.num_utterances} utterances, "
        f"{report.num_requests} requests{cost}"
    )
    if report.num_kept:
        print(f"{report.num_kept} of the traces are an earlier run's")
        now = {utterance.id: asked_of(utterance) for utterance in listed}
        traced = ((utterance.id, asked_of(utterance)) for utterance in read_manifest(report.manifest))
        if old := [id for id, asked in traced if now.get(id, asked) != asked]:
            shown = ", ".join(old[:3]) + (", ..." if len(old) > 3 else "")
            print(
                f"warning: {len(old)} of them were written for another emotion, other words or levels than "
                f"{arguments.manifest} has now: {shown}; a run over all of it writes them anew"
            )
    if report.left_out:
        print(f"without a trace: {', '.join(f'{n} {why}' for why, n in report.left_out.items())}")
    if report.num_uncounted:
        counted = "; the cost holds the most that each can have cost" if config.price else ""
        print(f"the endpoint did not count the tokens of {report.num_uncounted} answers{counted}")
    if "budget" in report.left_out:
        print("the budget is used up; the same command with a higher max_usd goes on")
    if "lost" in report.left_out:
        reasons = [f"{count} {reason}" for reason, count in report.lost.items()]
        further = f"; {len(reasons) - 3} further reasons" if len(reasons) > 3 else ""
        print(f"lost: {'; '.join(reasons[:3])}{further}. ask_lost=true asks again")
    if report.no_answer:
        raise EndpointError(
            f"{config.base_url}: none of {report.num_requests} requests got an answer; the last: "
            f"{report.no_answer}"
        )
    return 0
