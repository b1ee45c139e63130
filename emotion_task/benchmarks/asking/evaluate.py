"""Measures models on benchmarks: sets and models in, a table, JSON and every answer out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from emotion_task.benchmarks.asking.answers import Answer, answered, answers_file
from emotion_task.benchmarks.asking.report import set_report, write_report
from emotion_task.benchmarks.asking.styles import find_style
from emotion_task.benchmarks.asking.task import BenchmarkTask, QuestionSet
from rlcore.actors.session import has_gpus
from rlcore.config import AlgorithmConfig, RunConfig, TargetConfig, load_config
from rlcore.config.checks import check
from rlcore.errors import ConfigError
from rlcore.records.files import make_closed, write_json
from rlcore.records.run_lock import run_lock
from rlcore.records.versions import versions
from rlcore.run import ray_session

_TASK = "emotion_task.benchmarks.asking.task:BenchmarkTask"
_GPUS = "rollout.num_gpus"


def evaluate_benchmarks(
    models: Sequence[str],
    sets: Sequence[Mapping[str, Any]],
    out: str | Path,
    *,
    style: str = "think",
    limit: int | None = None,
    at_once: int = 256,
    seed: int = 0,
    configs: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Asks every model every set, writes evaluation.json, evaluation.md and answers/ into `out`, and returns
    what evaluation.json holds.

    The same call goes on where an earlier one was stopped: answers that are there are not asked again.

    Args:
        models: checkpoint folders or hub ids; others are compared with the first.
        sets: as `BenchmarkTask` takes them.
        style: one of `emotion_task.benchmarks.asking.styles.STYLES`, or your own.
        limit: number of questions of each set, chosen by a hash of their ids.
        at_once: questions that the engines get together; 1 measures the latency of one answer.
        seed: seed of the bootstrap; answers are greedy.
        configs: YAML files of a run's configuration (`rollout`, `cluster`, `model`).
        overrides: `key=value` of the same, such as `rollout.num_gpus=1`.

    Raises:
        ConfigError: a model is named twice, a benchmark or style is not known, or a setting is wrong.
        DataError: a set's files are missing or malformed.
        StoppedError: a signal asked for an end; what was answered is kept.
    """
    check(at_once >= 1, "at_once", at_once, "1 or more")
    models = [_resolved(model) for model in models]
    if len(set(models)) < len(models):
        raise ConfigError(f"models: got {models}; each is named once")
    folder = make_closed(out)
    config = _run_config(style, configs, overrides)
    common: dict[str, Any] = {
        "sets": [dict(each) for each in sets],
        "style": style,
        "limit": limit,
        "audio_folder": str(folder / "audio"),
    }
    tasks = {model: BenchmarkTask(model_path=model, **common) for model in models}
    for task in tasks.values():
        task.prompts("eval")  # what is wrong with files or templates is told before an engine starts
    answers: dict[str, dict[str, dict[str, Answer]]] = {}
    with run_lock(folder), ray_session(config.cluster):
        if not _is_told(configs, overrides) and has_gpus():
            config = replace(config, rollout=replace(config.rollout, num_gpus=1.0))
        for model, task in tasks.items():
            target = TargetConfig(target=_TASK, args={"model_path": model, **common})
            own = replace(config, model=replace(config.model, path=model), task=target)
            answers[model] = answered(own, task, folder, at_once=at_once)
    settings = {
        "models": models,
        "style": style,
        "max_tokens": config.rollout.max_tokens,
        "limit": limit,
        "at_once": at_once,
        "seed": seed,
        "versions": versions(),
    }
    report = {"settings": settings, "sets": _set_reports(tasks, answers, folder, seed)}
    write_report(report, folder)
    return report


def _set_reports(
    tasks: Mapping[str, BenchmarkTask],
    answers: Mapping[str, Mapping[str, Mapping[str, Answer]]],
    folder: Path,
    seed: int,
) -> dict[str, Any]:
    """Returns each set's figures; leaves the predictions for its owner in `folder`."""
    short = {model: _short(model, list(tasks)) for model in tasks}
    by_name = {short[model]: task for model, task in tasks.items()}
    reports = {}
    for question_set in next(iter(tasks.values())).sets:
        given = {model: answers[model][question_set.name] for model in tasks}
        of_models = {short[model]: found for model, found in given.items()}
        reports[question_set.name] = set_report(by_name, question_set, of_models, seed=seed)
        for model, found in given.items():
            _write_predictions(folder, model, question_set, found)
    return reports


def _resolved(model: str) -> str:
    return str(Path(model).expanduser().resolve()) if Path(model).expanduser().is_dir() else model


def _run_config(style: str, configs: Sequence[str], overrides: Sequence[str]) -> RunConfig:
    """Returns the configuration of engines that answer; model and task are set for each model."""
    defaults = {
        "model": {"path": "set later"},
        "task": {"target": _TASK},
        "rollout": {"max_tokens": find_style(style).max_tokens},
        "learner": {"over_budget": "drop"},  # there is no learner whose budget an answer could exceed
    }
    with tempfile.TemporaryDirectory() as folder:
        lowest = Path(folder) / "defaults.yaml"
        lowest.write_text(yaml.safe_dump(defaults), encoding="utf-8")
        config = load_config([lowest, *configs], overrides)
    # A run's configuration may be given as it is: nothing is rewarded here, nothing trained.
    return replace(config, rewards={}, algorithm=AlgorithmConfig())


def _is_told(configs: Sequence[str], overrides: Sequence[str]) -> bool:
    return bool(configs) or any(text.startswith(f"{_GPUS}=") for text in overrides)


def _short(model: str, models: Sequence[str]) -> str:
    """Returns the shortest end of a model's path, folder and name at least, that no other one has."""
    parts = Path(model).parts
    for size in range(min(2, len(parts)), len(parts) + 1):
        name = "/".join(parts[-size:])
        if sum(Path(other).parts[-size:] == parts[-size:] for other in models) == 1:
            return name
    return model


def _write_predictions(
    out: Path, model: str, question_set: QuestionSet, answers: Mapping[str, Answer]
) -> None:
    """Writes the owner's rows with the model's texts, where the owner has a script (or a server) for them."""
    key = question_set.benchmark.prediction_key
    if key is None:
        return
    rows = [
        {**question.row, key: answers[question.id].text}
        for question in question_set.questions
        if question.id in answers
    ]
    file = answers_file(out, model, question_set)
    write_json(file.with_name(f"{question_set.name}_predictions.json"), rows)
