"""The ablation table of GRPO-PTR: what each part adds, from one base model and reward model.

    the line up to the reward model -> base, SFT ----------------------------> answers -> table
                                   `-> GRPO (V2), V3 .. V6, each seed -> model --^

The stages before reinforcement learning are those of the line itself, in its own folder: what `make small`
has finished there is found. Every run has a folder of its own below `run_dir/ablation`, goes on from its last
checkpoint where it was interrupted, and is not run again once finished with the same settings. All models are
judged alike: greedy answers to the held-out prompts, graded by the trained reward model, whatever reward they
were trained on, and by the claim finder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emotion_task.config import PipelineConfig
from emotion_task.evaluation.bootstrap import MEAN, Estimate, estimate, estimate_gain
from emotion_task.evaluation.report import plot_ablation
from emotion_task.perception.emotions import read_answers, recall_scores
from emotion_task.pipeline.line import Pipeline
from emotion_task.pipeline.stages import Stages
from rlcore.config import RunConfig, load_config
from rlcore.errors import ConfigError, StoppedError
from rlcore.records.checkpoint import run_settings
from rlcore.records.files import write_json
from rlcore.records.tracking import read_metrics

TRAINED = {
    "v2": "GRPO, rule rewards only (V2)",
    "v3": "reward model untrained (V3)",
    "v4": "no trust weight (V4)",
    "v5": "no progressive schedule (V5)",
    "v6": "GRPO-PTR (V6)",
}
"""Variants that are trained by reinforcement learning, by their file in configs/ablations."""
VARIANTS = {"base": "base model", "sft": "prosody SFT", **TRAINED}
_FOLDER = Path(__file__).parents[1] / "configs" / "ablations"
_MAX_GRADE = 5


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One model's greedy answers, and what it took to train it."""

    variant: str
    seed: int | None
    """None: the variant has no seed of its own."""
    metrics: dict[str, float]
    samples: str
    """samples.jsonl of the answers."""
    cpu_hours: float = 0.0
    """Of reinforcement learning: hours by the clock times the cores of its Ray cluster."""
    tokens: int = 0
    """Completion tokens that it sampled."""


def run_ablation(
    configs: Sequence[str],
    overrides: Sequence[str],
    *,
    variants: Sequence[str] = tuple(VARIANTS),
    seeds: Sequence[int] = (0,),
) -> Path:
    """Runs what is missing and returns the table's file, `run_dir/ablation/ablation.md`.

    Args:
        configs, overrides: of the line, as `emotion quickstart` takes them.
        seeds: of reinforcement learning; base, SFT and reward model are the line's own.

    Raises:
        ConfigError: an unknown variant.
        StoppedError: a signal; the same command goes on from there.
    """
    unknown = sorted(set(variants) - set(VARIANTS))
    if unknown:
        raise ConfigError(f"--variants: {unknown} are not known; allowed are {', '.join(VARIANTS)}")
    line = load_config(configs, overrides, schema=PipelineConfig)
    pipeline = Pipeline(line)
    pipeline.run(until="reward_model")
    folder = pipeline.run_dir / "ablation"
    starts = {name: pipeline.stages.results[stage]["model"] for name, stage in _STAGES.items()}
    answered = [_evaluated(name, starts[name], line, folder) for name in _STAGES if name in variants]
    for seed in seeds:
        for name in TRAINED:
            if name in variants:
                config = _variant(name, seed, configs, overrides, line.run_dir, folder)
                answered.append(_trained(name, seed, config, line, folder))
                write_table(answered, folder, seed=line.seed)  # what there is, should the next one stop
    return write_table(answered, folder, seed=line.seed)


_STAGES = {"base": "base_model", "sft": "cold_start"}
"""Variants without reinforcement learning, and the stage of the line whose model they are."""


def _variant(
    name: str, seed: int, configs: Sequence[str], overrides: Sequence[str], run_dir: str, folder: Path
) -> RunConfig:
    """The line's `rl` section under the variant's file; `run_dir` is the line's own, as it is configured."""
    own = [f"run_dir={run_dir}", f"rl.run_dir={folder / f'{name}-seed{seed}'}", f"rl.seed={seed}"]
    return load_config([*configs, str(_FOLDER / f"{name}.yaml")], [*overrides, *own], PipelineConfig).rl


def _trained(name: str, seed: int, config: RunConfig, line: PipelineConfig, folder: Path) -> Answered:
    """Trains a variant, unless it is done, and lets it answer."""
    from rlcore.run import train

    run_dir = Path(config.run_dir)

    def work(may_resume: bool) -> dict[str, Any]:
        result = train(config, resume=may_resume)
        if result["stopped_by"] is not None:
            raise StoppedError(
                f"stopped by {result['stopped_by']} after step {result['steps']} of {run_dir.name}, with a "
                "checkpoint; the same command goes on from there"
            )
        rows = [row for row in read_metrics(run_dir) if "batch/tokens" in row]
        seconds = sum(value for row in rows for key, value in row.items() if key.startswith("seconds/"))
        return {
            "model": result["model"],
            "cpu_hours": seconds * _num_cores(config) / 3600,
            "tokens": int(sum(row["batch/tokens"] for row in rows)),
        }

    settings = [run_settings(config), _models(config)]
    found = Stages(run_dir).run(run_dir.name, settings, work)
    answers = _evaluated(name, found["model"], line, folder, seed=seed)
    return replace(answers, cpu_hours=found["cpu_hours"], tokens=found["tokens"])


def _evaluated(
    name: str, model: str, line: PipelineConfig, folder: Path, *, seed: int | None = None
) -> Answered:
    """A model's greedy answers, graded by the line's own rewards."""
    from rlcore.run import evaluate

    own = name if seed is None else f"{name}-seed{seed}"
    run_dir = folder / own / "answers"
    config = replace(line.rl, run_dir=str(run_dir), model=replace(line.rl.model, path=model))
    settings = [run_settings(config), _models(config)]
    metrics = Stages(run_dir).run(f"{own}-answers", settings, lambda may_resume: evaluate(config))
    samples = str(run_dir / "eval" / "samples.jsonl")
    return Answered(variant=name, seed=seed, metrics=metrics, samples=samples)


def _models(config: RunConfig) -> list[str]:
    """Stamps of the policy and of the rewards' models: one that was trained again makes another run."""
    judges = [reward.args.get("model_path") for reward in config.rewards.values()]
    return [_weights_stamp(str(path)) for path in (config.model.path, *judges) if path is not None]


def _weights_stamp(model: str) -> str:
    """Tells a model that was trained again from the one that was asked."""
    files = sorted(Path(model).glob("*.safetensors"))
    return "/" + ",".join(f"{f.name}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files)


def _num_cores(config: RunConfig) -> float:
    return config.cluster.num_cpus or os.cpu_count() or 1


def unweighted_accuracy(answered: Sequence[Answered], *, seed: int = 0) -> Estimate:
    """Unweighted accuracy, the mean over seeds, with its 95 % bootstrap interval over utterances: the same
    ones are drawn for all seeds."""
    answers = [read_answers(each.samples)[1] for each in answered]
    emotions, tables = recall_scores(answers)
    return estimate(np.mean(tables, axis=0), emotions, seed=seed)[MEAN]


def accuracy_gain(before: Sequence[Answered], after: Sequence[Answered], *, seed: int = 0) -> Estimate:
    """As `unweighted_accuracy`, of `after` less `before`, paired over the utterances that all answered."""
    answers = [read_answers(each.samples)[1] for each in (*before, *after)]
    emotions, tables = recall_scores(answers)
    first, second = (np.mean(part, axis=0) for part in (tables[: len(before)], tables[len(before) :]))
    return estimate_gain(first, second, emotions, seed=seed)[MEAN]


def write_table(answered: Sequence[Answered], folder: Path, *, seed: int) -> Path:
    """Writes ablation.json, ablation.md and ablation.png, a row a variant, and returns the second."""
    by_variant = {name: [a for a in answered if a.variant == name] for name in VARIANTS}
    rows = {name: _row(group, by_variant["sft"], seed) for name, group in by_variant.items() if group}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "ablation.json", {"rows": rows, "runs": [asdict(each) for each in answered]})
    plot_ablation({row["name"]: row for row in rows.values()}, folder / "ablation.png")
    lines = [
        "# Ablations of GRPO-PTR",
        "",
        "Greedy answers to the held-out prompts; UA: unweighted accuracy in per cent, in brackets its 95 % "
        "bootstrap interval over utterances (the mean over seeds is resampled). Over SFT: its difference "
        "from the SFT model's, in points, paired over utterances. Reasoning: the trained reward model's "
        "grade, 1 to 5. Claims right: share of checked claims that are facts. Cost: of reinforcement "
        "learning, a seed.",
        "",
        "| | seeds | UA | over SFT | accuracy | format | reasoning | claims right | CPU hours | tokens |",
        "| --- |" + " ---: |" * 9,
        *(_line(row) for row in rows.values()),
        "",
        "![Unweighted accuracy and grades](ablation.png)",
        "",
    ]
    path = folder / "ablation.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _row(group: Sequence[Answered], sft: Sequence[Answered], seed: int) -> dict[str, Any]:
    def mean(name: str) -> float | None:
        values = [each.metrics[name] for each in group if name in each.metrics]
        return float(np.mean(values)) if values else None

    reasoning = mean("reward/reasoning")
    is_trained = group[0].variant in TRAINED
    gain = accuracy_gain(sft, group, seed=seed) if sft and is_trained else None
    return {
        "name": VARIANTS[group[0].variant],
        "num_seeds": len(group),
        "unweighted_accuracy": asdict(unweighted_accuracy(group, seed=seed)),
        "over_sft": None if gain is None else asdict(gain),
        "accuracy": mean("accuracy"),
        "format": mean("format_rate"),
        "reasoning": None if reasoning is None else _MAX_GRADE * reasoning,
        "claims_right": mean("faithfulness/precision"),
        "cpu_hours": float(np.mean([each.cpu_hours for each in group])),
        "tokens": float(np.mean([each.tokens for each in group])),
    }


def _line(row: dict[str, Any]) -> str:
    def cell(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    def interval(value: dict[str, float] | None, form: str) -> str:
        if value is None:
            return "-"
        middle, low, high = (format(100 * value[name], form) for name in ("value", "low", "high"))
        return f"{middle} [{low}, {high}]"

    cells = [
        row["name"],
        str(row["num_seeds"]),
        interval(row["unweighted_accuracy"], ".1f"),
        interval(row["over_sft"], "+.1f"),
        *(cell(row[name], ".3f") for name in ("accuracy", "format")),
        cell(row["reasoning"], ".2f"),
        cell(row["claims_right"], ".3f"),
        cell(row["cpu_hours"], ".2f"),
        cell(row["tokens"], ",.0f"),
    ]
    return f"| {' | '.join(cells)} |"
