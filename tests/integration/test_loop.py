"""The loop with every actor for real: synchronous and ahead of the updates, with replicas that die, prompts
that do not fit, and groups that have to be replaced."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loop_cases import loop_config
from tiny_models import make_text

from rlcore.config import AlgorithmConfig, ClusterConfig, RewardConfig, RolloutConfig, TargetConfig
from rlcore.errors import ConfigError, LogprobError
from rlcore.run import ray_session, train
from rlcore.timeline import busy_seconds, read_spans, write_trace
from rlcore.tracking import read_metrics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text(tmp_path_factory.mktemp("loop") / "text")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        # Ray's workers import loop_cases by name.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        with ray_session(ClusterConfig(num_cpus=2)):
            yield


def samples(run_dir: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (run_dir / "samples.jsonl").read_text().splitlines())
    return [row for row in rows if row["split"] == "train"]


def test_rollouts_run_ahead_of_updates_within_the_bound(tmp_path: Path, model: Path) -> None:
    config = loop_config(tmp_path / "run", model)
    config = replace(config, train=replace(config.train, staleness=1, num_steps=4, groups_per_score=2))
    train(config)
    rows = read_metrics(tmp_path / "run")[1:]
    assert [row["staleness/max"] for row in rows] == [0, 1, 1, 1]
    assert all(0 < row["staleness/mean"] <= 1 for row in rows[1:])
    assert rows[0]["logprob_max_diff"] < 1e-4
    rollouts = samples(tmp_path / "run")
    assert Counter(row["step"] for row in rollouts) == {1: 16, 2: 16, 3: 16, 4: 16}
    prompts = [row["prompt"] for row in rollouts if row["sample"] == 0]
    assert Counter(Counter(prompts).values()) == {1: 8, 2: 4}  # 16 prompts of 12: none lost, none twice
    for row in rollouts:
        versions = row["versions"]
        assert versions[0][0] == row["policy_version"] >= row["step"] - 1
        assert [version for version, _ in versions] == sorted({version for version, _ in versions})
        assert sum(count for _, count in versions) == row["tokens"]


def test_a_timeline_shows_what_overlaps(tmp_path: Path, model: Path) -> None:
    rewards = {"even": RewardConfig(target="loop_cases:slow_even_tokens", num_cpus=0.05)}
    config = loop_config(tmp_path / "run", model, rewards=rewards)
    train(replace(config, train=replace(config.train, num_steps=2, groups_per_score=1)))
    spans = read_spans(tmp_path / "run")
    seconds = busy_seconds(spans)
    assert {"rollout", "score", "update", "weight_sync"} <= set(seconds["controller"])
    assert seconds["rollout[0]"]["generate"] > 0 and seconds["reward:even"]["score"] > 0
    trace = json.loads(write_trace(tmp_path / "run").read_text())
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(events) == len(spans) and min(event["ts"] for event in events) == 0
