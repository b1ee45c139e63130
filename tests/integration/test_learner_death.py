"""Learner ranks, the reference and a rollout replica die, or are stopped, in the middle of their work; the
run goes on as if they had not."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_cases import loop_config
from mortal_workers import FOLDER, MortalLearner, MortalReference, MortalRollout, arm
from safetensors.torch import load_file
from tiny_models import make_text

from rlcore.config import AlgorithmConfig, ClusterConfig, RunConfig, WeightSyncConfig
from rlcore.errors import ActorError
from rlcore.records.tracking import read_metrics
from rlcore.run import ray_session, train

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text(tmp_path_factory.mktemp("death") / "text")


@pytest.fixture(scope="module", autouse=True)
def deaths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of armed deaths; Ray is up, with workers that look there."""
    folder = tmp_path_factory.mktemp("deaths")
    with pytest.MonkeyPatch.context() as patch:
        # Ray's workers import the support modules by name.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"), prepend=os.pathsep)
        patch.setenv(FOLDER, str(folder))
        patch.setattr("rlcore.actors.spawn.LearnerWorker", MortalLearner)
        patch.setattr("rlcore.actors.spawn.RolloutWorker", MortalRollout)
        patch.setattr("rlcore.actors.reference_pool.ReferenceWorker", MortalReference)
        with ray_session(ClusterConfig(num_cpus=2)):
            yield folder


def config_of(run_dir: Path, model: Path, **train_settings: Any) -> RunConfig:
    """Six steps of two learner ranks, with a reference; a push has a dozen buckets."""
    config = loop_config(run_dir, model, algorithm=AlgorithmConfig(kl_coef=0.05))
    return replace(
        config,
        learner=replace(config.learner, num_ranks=2, max_restarts=4),
        weight_sync=WeightSyncConfig(bucket_mb=0.1),
        train=replace(config.train, **{"num_steps": 6, "rolling_every": 2, **train_settings}),
    )


def rollouts(run_dir: str | Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (Path(run_dir) / "samples.jsonl").read_text().splitlines())
    return [row for row in rows if row["split"] == "train"]


def test_a_run_whose_actors_die_ends_with_the_weights_of_one_whose_actors_live(
    tmp_path: Path, model: Path, deaths: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A kill in an update, in a push that is half done, and in a save; processes that are stopped, an engine
    in the middle of its answers among them."""
    whole = config_of(tmp_path / "whole", model)
    train(whole)
    disturbed = config_of(tmp_path / "disturbed", model)
    kills, stops = ["update-1-2", "push-0-3", "save-1-4"], ["reference", "rollout-9", "update-0-5"]
    arm(deaths, *kills, *(f"{stop}-stop" for stop in stops))
    with caplog.at_level(logging.WARNING):
        train(disturbed)
    assert not list(deaths.iterdir()), "someone lives: the test proved nothing"

    learner = re.findall(r"started anew, \d of 4 times: (learner\[\d\] died in \w+)", caplog.text)
    assert learner == [
        "learner[1] died in update",
        "learner[0] died in push_weights",
        "learner[1] died in save",
        "learner[0] died in update",
    ]
    silent = r"(\w+)\[0\] on [\d.]+ is killed: process \d+ gave no sign of life for 15 s; threads of process"
    assert re.findall(silent, caplog.text) == ["reference", "rollout", "learner"]
    assert re.search("rollout.* is killed: .*die_if_armed .* < MortalRollout.submit", caplog.text)
    assert re.findall(r"a new learner goes on after step (\d)", caplog.text) == ["0", "2", "2", "4"]
    seconds = [int(found) for found in re.findall(r"goes on after step \d, (\d+) s later", caplog.text)]
    print(f"seconds until a new learner stood: {seconds}")

    expected = load_file(Path(whole.run_dir) / "model" / "model.safetensors")
    ended = load_file(Path(disturbed.run_dir) / "model" / "model.safetensors")
    assert ended.keys() == expected.keys()
    for name, tensor in ended.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, msg=name)
    rows, undisturbed = (read_metrics(config.run_dir)[1:] for config in (disturbed, whole))
    lines = (Path(disturbed.run_dir) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if '"loss"' in line] == [1, 2, 3, 4, 5, 6]
    for name in ("loss", "grad_norm", "reward/even", "kl"):
        assert [row[name] for row in rows] == [row[name] for row in undisturbed]
    assert [row["learner/restarts"] for row in rows] == [1, 1, 3, 3, 4, 4]
    assert rows[-1]["reference/restarts"] == rows[-1]["rollout/restarts"] == 1
    texts = [
        [(row["step"], row["sample"], row["prompt"], row["text"]) for row in rollouts(config.run_dir)]
        for config in (disturbed, whole)
    ]
    assert texts[0] == texts[1]
    # Tokens know the version that wrote them: it is a later one with every learner.
    versions = {row["step"]: row["policy_version"] for row in rollouts(disturbed.run_dir)}
    assert list(versions.values()) == sorted(set(versions.values()))
    assert all(row["logprob_max_diff"] < 1e-4 for row in rows)


@pytest.mark.chaos
def test_ahead_of_the_updates_no_sample_is_used_twice_and_too_many_deaths_end_the_run(
    tmp_path: Path, model: Path, deaths: Path
) -> None:
    config = config_of(tmp_path / "run", model, staleness=1, groups_per_score=2)
    config = replace(
        config,
        learner=replace(config.learner, num_ranks=1, max_restarts=1),
        algorithm=AlgorithmConfig(kl_coef=0),
    )
    arm(deaths, "update-0-4", "push-0-5")
    with pytest.raises(ActorError) as ended:
        train(config)
    assert not list(deaths.iterdir())
    saved, file = Path(config.run_dir) / "checkpoints" / "step_000004", Path(config.run_dir) / "config.yaml"
    assert re.fullmatch(
        r"learner\[0\] died in push_weights on [\d.]+ \(its log in Ray's session folder says more\): .*\. "
        r"It was started anew 1 times and learner\.max_restarts allows no more\. "
        rf"{saved} is saved, and `rlcore train --config {file} --resume` goes on from there",
        str(ended.value),
        re.DOTALL,
    )
    train(config, resume=True)

    rows = read_metrics(config.run_dir)[1:]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["staleness/max"] for row in rows[1:4]] == [1, 0, 1]
    assert all(row["staleness/max"] <= 1 for row in rows)
    assert all(row["logprob_max_diff"] < 1e-4 for row in rows if row.get("logprob_max_diff"))
    used = rollouts(config.run_dir)
    assert Counter(row["step"] for row in used) == dict.fromkeys(range(1, 7), 16)
    prompts = Counter(row["prompt"] for row in used if row["sample"] == 0)
    assert set(prompts.values()) == {2} and len(prompts) == 12  # 24 prompts of 12: none lost, none twice
    assert [path.name for path in saved.parent.iterdir()] == ["step_000006"]
