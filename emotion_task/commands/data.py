"""The commands that make data: corpora, measured prosody, reasoning traces, data sets."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emotion_task.records import Utterance


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds them to a parser's subcommands; `common` holds the options of every command."""
    for add in (_add_corpus, _add_annotate, _add_traces, _add_cot, _add_export):
        add(commands, common)


def _add_corpus(commands: Any, common: argparse.ArgumentParser) -> None:
    corpus = commands.add_parser("corpus", parents=[common], help="make the synthetic corpus from a seed")
    corpus.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    corpus.add_argument("--num-train", type=int, default=4000, help="utterances to train on (default: 4000)")
    corpus.add_argument("--num-eval", type=int, default=600, help="held-out utterances (default: 600)")
    corpus.add_argument("--seed", type=int, default=0)
    corpus.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    corpus.set_defaults(run=_corpus)


def _add_annotate(commands: Any, common: argparse.ArgumentParser) -> None:
    annotate = commands.add_parser(
        "annotate",
        parents=[common],
        help="measure prosody and calibrate levels",
        description="Measures every recording of a manifest (JSONL, CSV or Parquet with a column `audio`, "
        "and where known text, emotion, speaker, gender, split) or of a corpus in its owner's layout, "
        "calibrates low/normal/high, and writes manifest.jsonl, calibration.json and quarantine.jsonl.",
    )
    annotate.add_argument("source", metavar="MANIFEST|FOLDER")
    annotate.add_argument(
        "overrides", nargs="*", metavar="key=value", help="for the reader, such as eval_speakers=[KL]"
    )
    annotate.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    annotate.add_argument(
        "--corpus",
        default="manifest",
        help="reader of SOURCE: manifest (default), ears, emodb, expresso, iemocap, mead, meld, msp_podcast, "
        "ravdess, savee or synthetic",
    )
    annotate.add_argument("--calibration", metavar="FILE", help="apply these cut points, make none")
    annotate.add_argument("--max-seconds", type=float, default=30.0, help="quarantine longer files")
    annotate.add_argument("--language", default="en", help="of transcripts whose corpus does not tell")
    annotate.add_argument(
        "--aligner",
        metavar="MODULE:CLASS",
        help="finds words, for stress, such as emotion_task.prosody.align:SynthesisAligner (default: none)",
    )
    annotate.add_argument(
        "--speaker-classifier",
        metavar="MODULE:CLASS",
        help="hears gender and age, such as emotion_task.prosody.speaker:PitchGender (default: none)",
    )
    annotate.add_argument(
        "--pass",
        dest="only",
        choices=("measure", "calibrate"),
        help="only the first, or only the second over what the first left (default: both)",
    )
    annotate.add_argument(
        "--percentiles", type=float, nargs=2, metavar=("LOW", "HIGH"), help="cut points (default: thirds)"
    )
    annotate.add_argument("--fresh", action="store_true", help="measure again what OUT holds")
    annotate.add_argument(
        "--workers", type=int, help="processes (default: every CPU of the Ray cluster; 0: this process)"
    )
    annotate.set_defaults(run=_annotate)


def _add_traces(commands: Any, common: argparse.ArgumentParser) -> None:
    traces = commands.add_parser(
        "traces",
        parents=[common],
        help="write a reasoning trace for each annotated utterance, from a template",
    )
    traces.add_argument("manifest", metavar="MANIFEST")
    traces.add_argument("--out", type=Path, required=True, metavar="FILE", help="the manifest with traces")
    traces.add_argument("--style", default="short", help="short (default) or long")
    traces.add_argument("--quote-rate", type=float, default=0.0, help="share that quotes the transcript")
    traces.add_argument("--seed", type=int, default=0)
    traces.set_defaults(run=_traces)


def _add_cot(commands: Any, common: argparse.ArgumentParser) -> None:
    cot = commands.add_parser(
        "cot",
        parents=[common],
        help="let a language model write a checked reasoning trace for each annotated utterance",
        description="Asks an OpenAI-compatible endpoint for traces, checks each, and writes manifest.jsonl "
        "(accepted), rejected.jsonl (with reasons) and statistics.json. Run again, it goes on where it "
        "stopped and asks for nothing twice. Settings (emotion_task.cot.generate.CotConfig): model=NAME "
        "base_url=http://localhost:8000/v1 concurrency=16 price.input=0.15 price.output=0.6 max_usd=20 "
        "attempts=2 min_words=50 max_words=200 temperature=0.9 extra.reasoning_effort=low ...",
    )
    cot.add_argument("manifest", metavar="MANIFEST")
    cot.add_argument("overrides", nargs="*", metavar="key=value", help="settings; model is required")
    cot.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    cot.add_argument("--config", action="append", default=[], metavar="FILE", help="settings as YAML")
    cot.add_argument("--limit", type=int, metavar="N", help="so many utterances, chosen by a hash of ids")
    cot.set_defaults(run=_cot)


def _add_export(commands: Any, common: argparse.ArgumentParser) -> None:
    export = commands.add_parser(
        "export", parents=[common], help="write utterances with traces as a Hugging Face data set"
    )
    export.add_argument("traces", metavar="FOLDER|MANIFEST", help="of `emotion cot`, or with traces")
    export.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    export.add_argument("--with-audio", action="store_true", help="put the recordings in (mind the licences)")
    export.add_argument("--license", default="other", help="for the card, as the hub spells it")
    export.add_argument("--name", default="EmotionCoT", help="of the data set (default: EmotionCoT)")
    export.set_defaults(run=_export)


def _corpus(arguments: argparse.Namespace) -> int:
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


def _annotate(arguments: argparse.Namespace) -> int:
    from emotion_task.prosody.calibrate import TERTILES
    from emotion_task.prosody.files import MeasureConfig
    from emotion_task.prosody.pipeline import calibrate_corpus, measure_corpus

    utterances = _listed(arguments)
    if arguments.only != "calibrate":
        config = MeasureConfig(
            max_seconds=arguments.max_seconds,
            language=arguments.language,
            aligner=arguments.aligner,
            speaker_classifier=arguments.speaker_classifier,
        )
        measure_corpus(
            utterances,
            arguments.out,
            config=config,
            num_workers=arguments.workers,
            resume=not arguments.fresh,
        )
    if arguments.only == "measure":
        print(arguments.out / "measured.jsonl")
        return 0
    report = calibrate_corpus(
        utterances,
        arguments.out,
        calibration=arguments.calibration,
        percentiles=tuple(arguments.percentiles) if arguments.percentiles else TERTILES,
    )
    for warning in report.warnings:
        print(f"warning: {warning}")
    done = f"{report.num_annotated} of {report.num_utterances} annotated"
    print(f"{report.manifest}: {done}")
    if report.num_quarantined:
        print(f"{report.quarantine}: {report.num_quarantined} left out: {report.reasons}")
    return 0


def _listed(arguments: argparse.Namespace) -> list[Utterance]:
    """The corpus' utterances. What its reader leaves out, and why, is printed."""
    from emotion_task.corpora import load_corpus
    from emotion_task.corpora.decode import decode_containers
    from rlcore.config.io import parse_overrides

    logging.basicConfig(format="%(message)s")
    logging.getLogger("emotion_task.corpora").setLevel(logging.INFO)
    utterances = load_corpus(arguments.corpus, arguments.source, **parse_overrides(arguments.overrides))
    return decode_containers(utterances, arguments.out / "audio")


def _traces(arguments: argparse.Namespace) -> int:
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


def _cot(arguments: argparse.Namespace) -> int:
    from emotion_task.cot.generate import CotConfig, generate
    from emotion_task.records import choose, read_manifest
    from rlcore.config import load_config

    config = load_config(arguments.config, arguments.overrides, schema=CotConfig)
    utterances = choose(read_manifest(arguments.manifest), arguments.limit)
    report = generate(utterances, arguments.out, config)
    cost = f", {report.cost_usd:.2f} USD in all" if config.price else ""
    print(
        f"{report.manifest}: {report.num_accepted} traces for {report.num_utterances} utterances, "
        f"{report.num_requests} requests{cost}"
    )
    if report.left_out:
        print(f"without a trace: {', '.join(f'{n} {why}' for why, n in report.left_out.items())}")
    if "budget" in report.left_out:
        print("the budget is used up; the same command with a higher max_usd goes on")
    if "lost" in report.left_out:
        print("lost: under way when a run was killed, or timed out; ask_lost=true asks again")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from emotion_task.cot.export import export_dataset

    counts = export_dataset(
        arguments.traces,
        arguments.out,
        with_audio=arguments.with_audio,
        license=arguments.license,
        name=arguments.name,
    )
    print(f"{arguments.out}: {', '.join(f'{count} {split}' for split, count in counts.items())}")
    return 0
