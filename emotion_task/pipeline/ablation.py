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

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emotion_task.config import PipelineConfig
from emotion_task.pipeline.ablation_table import TRAINED, VARIANTS, Answered, write_table
from emotion_task.pipeline.inputs import named_inputs
from emotion_task.pipeline.line import Pipeline
from emotion_task.pipeline.results import Metrics, Model
from emotion_task.pipeline.stages import Say, Stage, Stages
from rlcore.config import RunConfig, load_config
from rlcore.errors import ConfigError, StoppedError
from rlcore.records.checkpoint import run_settings
from rlcore.records.tracking import read_metrics

log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parents[1] / "configs" / "ablations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant(Model):
    """A variant is a trained model, with what its training took."""

    cpu_hours: float
    """Hours of reinforcement learning by the clock, times the cores of its Ray cluster."""
    tokens: int
    """Completion tokens that were sampled in training."""


def run_ablation(
    configs: Sequence[str],
    overrides: Sequence[str],
    *,
    variants: Sequence[str] = tuple(VARIANTS),
    seeds: Sequence[int] = (0,),
    say: Say = log.info,
) -> Path:
    """Runs what is missing and returns the table's file, `run_dir/ablation/ablation.md`.

    Args:
        configs, overrides: of the line, as `emotion quickstart` takes them.
        seeds: of reinforcement learning; base, SFT and reward model are the line's own.
        say: is told which stage or variant begins.

    Raises:
        ConfigError: an unknown variant.
        StoppedError: a signal; the same command goes on from there.
    """
    unknown = sorted(set(variants) - set(VARIANTS))
    if unknown:
        raise ConfigError(f"--variants: {unknown} are not known; allowed are {', '.join(VARIANTS)}")
    line = load_config(configs, overrides, schema=PipelineConfig)
    pipeline = Pipeline(line, say)
    pipeline.run(until="reward_model")
    folder = pipeline.run_dir / "ablation"
    answered = [
        _evaluated(name, pipeline.model(stage), line, folder, say)
        for name, stage in _STAGES.items()
        if name in variants
    ]
    for seed in seeds:
        for name in TRAINED:
            if name in variants:
                config = _variant(name, seed, configs, overrides, line.run_dir, folder)
                answered.append(_trained(name, seed, config, line, folder, say))
                write_table(answered, folder, seed=line.seed)  # what there is, should the next one stop
    return write_table(answered, folder, seed=line.seed)


_STAGES = {"base": "base_model", "sft": "cold_start"}
"""Variants without reinforcement learning, and the stage of the line whose model they are."""


def _variant(
    name: str, seed: int, configs: Sequence[str], overrides: Sequence[str], run_dir: str, folder: Path
) -> RunConfig:
    """Returns the line's `rl` section under the variant's file; `run_dir` is the line's own, as it is
    configured."""
    own = [f"run_dir={run_dir}", f"rl.run_dir={folder / f'{name}-seed{seed}'}", f"rl.seed={seed}"]
    return load_config([*configs, str(_FOLDER / f"{name}.yaml")], [*overrides, *own], PipelineConfig).rl


def _trained(
    name: str, seed: int, config: RunConfig, line: PipelineConfig, folder: Path, say: Say
) -> Answered:
    """Trains a variant, unless it is done, and lets it answer."""
    from rlcore.run import train

    run_dir = Path(config.run_dir)

    def work(may_resume: bool) -> Variant:
        result = train(config, resume=may_resume, overwrite=True)
        if result["stopped_by"] is not None:
            raise StoppedError(
                f"stopped by {result['stopped_by']} after step {result['steps']} of {run_dir.name}, with a "
                "checkpoint; the same command goes on from there"
            )
        rows = [row for row in read_metrics(run_dir) if "batch/tokens" in row]
        seconds = sum(value for row in rows for key, value in row.items() if key.startswith("seconds/"))
        return Variant(
            model=result["model"],
            cpu_hours=seconds * _num_cores(config) / 3600,
            tokens=int(sum(row["batch/tokens"] for row in rows)),
        )

    stage = Stage(run_dir.name, Variant, run_settings(config), work, reads=lambda: named_inputs(config, "rl"))
    found = Stages(run_dir, say).run(stage)
    answers = _evaluated(name, found.model, line, folder, say, seed=seed)
    return replace(answers, cpu_hours=found.cpu_hours, tokens=found.tokens)


def _evaluated(
    name: str, model: str, line: PipelineConfig, folder: Path, say: Say, *, seed: int | None = None
) -> Answered:
    """Returns a model's greedy answers, graded by the line's own rewards."""
    from rlcore.run import evaluate

    own = name if seed is None else f"{name}-seed{seed}"
    run_dir = folder / own / "answers"
    config = replace(line.rl, run_dir=str(run_dir), model=replace(line.rl.model, path=model))
    stage = Stage(
        f"{own}-answers",
        Metrics,
        run_settings(config),
        lambda _: Metrics(metrics=evaluate(config)),
        reads=lambda: named_inputs(config, "rl"),
    )
    metrics = Stages(run_dir, say).run(stage).metrics
    samples = str(run_dir / "eval" / "samples.jsonl")
    return Answered(variant=name, seed=seed, metrics=metrics, samples=samples)


def _num_cores(config: RunConfig) -> float:
    return config.cluster.num_cpus or os.cpu_count() or 1
