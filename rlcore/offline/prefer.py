"""Training on preferences: rows in, a policy or a reward model out.

    rows -> examples.jsonl -> reference.jsonl -> job (`rlcore.offline.job`) -> model/

The reference is the policy before its first step. What it makes of each answer, one number, is computed then
and kept in the job's folder: no second model is held, with adapters or without.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlcore.actors.session import ray_session
from rlcore.config import load_config, save_config
from rlcore.config.io import plain
from rlcore.config.offline import PreferConfig
from rlcore.config.targets import build_target
from rlcore.errors import ConfigError, DataError
from rlcore.models.tokens import left_to_write
from rlcore.offline.job import EXAMPLES, METRICS, MODEL, SKIPPED, VALIDATION, run_job
from rlcore.offline.recipe import REFERENCE, PreferenceRecipe, Ranked
from rlcore.records.files import last_row, make_closed, write_rows
from rlcore.records.run_lock import run_lock
from rlcore.rewards.verdict import write_question
from rlcore.tasks.preferences import Preferences, judged
from rlcore.types import Prompt

CONFIG = "config.yaml"
"""The configuration, written once the examples are there."""


def prefer(config: PreferConfig, *, resume: bool = False, overwrite: bool = False) -> dict[str, Any]:
    """Trains a policy or a reward model on preferences, and returns the metrics of its last checkpoint, with
    `model`, its folder.

    SIGINT and SIGTERM end the job after the step at hand, with a checkpoint.

    Args:
        resume: goes on from the last checkpoint.
        overwrite: begins anew where `run_dir` holds a job, and deletes that.

    Raises:
        ConfigError: `run_dir` holds a job and neither is given, or a resumed job's configuration has changed.
        DataError: the rows are not what `loss` needs, or an example is too long.
        StoppedError: a signal ended the job.
    """
    run_dir = make_closed(config.run_dir)
    with run_lock(run_dir):
        _check_folder(config, run_dir, resume=resume, overwrite=overwrite)
        if not (run_dir / CONFIG).is_file():
            train, held_out = _examples(config)
            write_rows(run_dir / EXAMPLES, train)
            write_rows(run_dir / VALIDATION, held_out)
            save_config(config, run_dir / CONFIG)
        with ray_session(config.cluster):
            model = run_job(
                PreferenceRecipe(_with_whole_paths(config)), run_dir, seed=config.seed, name=config.loss
            )
    if config.trains_reward:
        write_question(model, config.question)
    return {**(last_row(run_dir / METRICS) or {}), "model": str(model)}


def _with_whole_paths(config: PreferConfig) -> PreferConfig:
    """The same for Train's workers, which run in folders of their own."""
    model, path = config.model, config.model.path
    whole = str(Path(path).resolve()) if Path(path).is_dir() else path
    args = {name: whole if value == path else value for name, value in config.task.args.items()}
    if model.media_cache is not None:
        model = replace(model, media_cache=str(Path(model.media_cache).resolve()))
    return replace(config, model=replace(model, path=whole), task=replace(config.task, args=args))


def _check_folder(config: PreferConfig, run_dir: Path, *, resume: bool, overwrite: bool) -> None:
    """Deletes or refuses what lies in the folder already."""
    written = (EXAMPLES, VALIDATION, REFERENCE, METRICS, SKIPPED, CONFIG, MODEL, "train")
    found = [run_dir / name for name in written if (run_dir / name).exists()]
    if resume:
        if not (run_dir / CONFIG).is_file():
            raise ConfigError(f"run_dir: {run_dir} holds no job to go on with; without --resume one begins")
        before = load_config([run_dir / CONFIG], [], PreferConfig)
        changed = _changed(plain(before, lasting=True), plain(config, lasting=True))
        if changed:
            raise ConfigError(
                f"{changed}: another value than the job in {run_dir} began with; give it back, or choose "
                "another run_dir"
            )
    elif found and not overwrite:
        raise ConfigError(
            f"run_dir: {run_dir} holds a job ({found[-1].name}): --resume goes on from its last checkpoint, "
            "--overwrite deletes it and begins anew. Or choose another run_dir"
        )
    elif found:
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _changed(before: object, now: object, key: str = "") -> str | None:
    """Returns the first key that differs."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = dict.fromkeys([*before, *now])
        inner = (_changed(before.get(n), now.get(n), f"{key}.{n}" if key else str(n)) for n in names)
        return next(filter(None, inner), None)
    return None if before == now else key


def _examples(config: PreferConfig) -> tuple[list[Ranked], list[Ranked]]:
    """Returns the examples to train on and those that are held out."""
    task = build_target(config.task.target, config.task.args, where="task")
    if not isinstance(task, Preferences):
        raise ConfigError(f"task.target: {config.task.target} is no rlcore.tasks:Preferences")
    train, held_out = (ranked(task.prompts(split), config) for split in ("train", "eval"))
    job = config.train
    if len(train) < job.batch_size:
        raise DataError(f"train.batch_size: got {job.batch_size}, and there are {len(train)} examples")
    if len(held_out) < job.learner.num_ranks:
        raise DataError(
            f"{len(held_out)} examples are held out, at least one a rank is needed (task.args.eval, or "
            "task.args.eval_fraction)"
        )
    return train, held_out


def ranked(prompts: Sequence[Prompt], config: PreferConfig) -> list[Ranked]:
    """Returns the examples that a loss needs.

    KTO compares with answers to other prompts: each example is given the next one's.

    Raises:
        DataError: `loss` needs pairs and a prompt has a labelled answer, or it needs labels and there is but
            one answer.
    """
    loss = config.loss
    if config.is_of_pairs:
        if labelled := [prompt for prompt in prompts if judged(prompt.reference).desirable is not None]:
            raise DataError(
                f"row {labelled[0].id!r} has a label, and loss: {loss} needs chosen and rejected; "
                "labelled answers are for loss: kto and pointwise"
            )
        return [_example(prompt, judged(prompt.reference).answers, None) for prompt in prompts]
    rows = [(prompt, judged(prompt.reference)) for prompt in prompts]
    single = [
        (prompt, text, row.desirable if row.desirable is not None else k == 0)
        for prompt, row in rows
        for k, text in enumerate(row.answers)
    ]
    if loss == "pointwise":
        return [_example(prompt, (text,), desirable) for prompt, text, desirable in single]
    # An answer to another prompt: the two of a pair stand side by side.
    step = max((len(row.answers) for _, row in rows), default=1)
    if len(single) <= step:
        raise DataError(f"{len(single)} labelled answers: loss: kto compares answers of several prompts")
    others = [single[(i + step) % len(single)][1] for i in range(len(single))]
    return [
        _example(prompt, (text, other), desirable)
        for (prompt, text, desirable), other in zip(single, others, strict=True)
    ]


def _example(prompt: Prompt, answers: Sequence[str], desirable: bool | None) -> Ranked:
    return {
        "id": prompt.id,
        "prompt": prompt.text,
        "media": dict(prompt.media),
        "answers": [left_to_write(prompt.text, answer) for answer in answers],
        "desirable": desirable,
    }
