"""The loop with every actor for real: synchronous and ahead of the updates, with replicas that die, prompts
that do not fit, and groups that have to be replaced."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from loop_cases import loop_config
from ray._private.state import actors
from swapping_learner import SwappingLearner
from tiny_models import make_text

from rlcore.actors.spawn import run_bundles
from rlcore.config import (
    AlgorithmConfig,
    ClusterConfig,
    LoRAConfig,
    ModelConfig,
    ReferenceConfig,
    RewardConfig,
    RunConfig,
    TargetConfig,
    TrainConfig,
)
from rlcore.errors import CheckpointError, WeightSyncError
from rlcore.records.files import read_rows
from rlcore.records.timeline import busy_seconds, read_spans, write_trace
from rlcore.records.tracking import read_metrics
from rlcore.run import evaluate, ray_session, train

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text(tmp_path_factory.mktemp("loop") / "text")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        # Ray's workers import loop_cases by name.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"), prepend=os.pathsep)
        with ray_session(ClusterConfig(num_cpus=2)):
            yield


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A run one step ahead, for the tests that look at what it leaves behind."""
    rewards = {"even": RewardConfig(target="loop_cases:slow_even_tokens", num_cpus=0.05)}
    config = loop_config(tmp_path_factory.mktemp("loop") / "watched", model, rewards=rewards)
    train(replace(config, train=replace(config.train, staleness=1, num_steps=4, groups_per_score=2)))
    return Path(config.run_dir)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, model: Path) -> RunConfig:
    """A run with a reference and at another temperature than 1, every actor on resources of its own."""
    run_dir = tmp_path_factory.mktemp("loop") / "apart"
    config = loop_config(run_dir, model, algorithm=AlgorithmConfig(kl_coef=0.1))
    config = replace(config, rollout=replace(config.rollout, temperature=0.5))
    train(config)
    return config


def test_a_run_whose_first_push_brings_other_weights_ends_before_it_trains(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlcore.actors.spawn.LearnerWorker", SwappingLearner)
    config = loop_config(tmp_path / "swapped", model)
    with pytest.raises(WeightSyncError, match="did not bring what vLLM had loaded") as ended:
        train(config)
    differing = re.search(r"parameters these differ: (\S+(?:, \S+)*)\. ", str(ended.value))
    assert differing and differing[1].endswith(":tp0:model.layers.0.mlp.gate_up_proj.weight"), ended.value
    assert [row["step"] for row in read_metrics(config.run_dir)] == [0]  # the evaluation before it


def samples(run_dir: str | Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (Path(run_dir) / "samples.jsonl").read_text().splitlines())
    return [row for row in rows if row["split"] == "train"]


def test_rollouts_run_ahead_of_updates_within_the_bound(watched: Path) -> None:
    rows = read_metrics(watched)[1:]
    assert [row["staleness/max"] for row in rows] == [0, 1, 1, 1]
    assert all(0 < row["staleness/mean"] <= 1 for row in rows[1:])
    assert rows[0]["logprob_max_diff"] < 1e-4
    rollouts = samples(watched)
    assert Counter(row["step"] for row in rollouts) == {1: 16, 2: 16, 3: 16, 4: 16}
    prompts = [row["prompt"] for row in rollouts if row["sample"] == 0]
    assert Counter(Counter(prompts).values()) == {1: 8, 2: 4}  # 16 prompts of 12: none lost, none twice
    for row in rollouts:
        versions = row["versions"]
        assert versions[0][0] == row["policy_version"] >= row["step"] - 1
        assert [version for version, _ in versions] == sorted({version for version, _ in versions})
        assert sum(count for _, count in versions) == row["tokens"]


def test_a_timeline_shows_what_overlaps(watched: Path) -> None:
    spans = read_spans(watched)
    seconds = busy_seconds(spans)
    assert {"rollout", "score", "update", "weight_sync"} <= set(seconds["controller"])
    assert seconds["rollout[0]"]["generate"] > 0 and seconds["reward:even"]["score"] > 0
    trace = json.loads(write_trace(watched).read_text())
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(events) == len(spans) and min(event["ts"] for event in events) == 0


def test_a_dashboard_finds_its_metrics_at_rays_endpoint(watched: Path) -> None:
    last = read_metrics(watched)[-1]
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    exported, deadline = dict[tuple[str, str], float](), time.monotonic() + 60
    while exported.get(("ray_rlcore_step", "")) != 4 and time.monotonic() < deadline:
        time.sleep(0.5)
        with urllib.request.urlopen(address, timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("ray_rlcore_") and 'run="watched"' in line:
                    name = re.search(r'\bname="([^"]*)"', line).group(1)
                    exported[line.partition("{")[0], name] = float(line.rpartition(" ")[2])
    assert exported["ray_rlcore_step", ""] == 4
    assert exported["ray_rlcore_reward", "even"] == pytest.approx(last["reward/even"])
    assert exported["ray_rlcore_seconds", "update"] == pytest.approx(last["seconds/update"])
    dashboard = Path(__file__).parents[2] / "cluster" / "grafana" / "rlcore.json"
    asked = set(re.findall(r"ray_rlcore_\w+", dashboard.read_text()))
    assert len(asked) > 15 and asked <= {family for family, _ in exported}


def test_the_first_groups_make_the_step_and_the_rest_is_cancelled(tmp_path: Path, model: Path) -> None:
    """Half as many prompts again as a step needs; the engine holds four of them at a time."""
    config = loop_config(tmp_path / "run", model)
    config = replace(config, train=replace(config.train, num_steps=3, oversample=0.5))
    train(config)
    rows = read_metrics(tmp_path / "run")[1:]
    rollouts = samples(tmp_path / "run")
    assert [row["rollout/cancelled_prompts"] for row in rows] == [2, 2, 2]
    assert [row["batch/sequences"] for row in rows] == [16, 16, 16]
    assert Counter(row["step"] for row in rollouts) == {1: 16, 2: 16, 3: 16}
    first_epoch = [row["prompt"] for row in rollouts if row["sample"] == 0 and row["step"] <= 2]
    assert len(set(first_epoch)) == 8  # of the 12 that two rounds begin with


def test_a_reward_of_single_tokens_trains(tmp_path: Path, model: Path) -> None:
    """No answer as a whole is worth anything: even tokens are, each by itself. The reference follows after
    every four steps, so each fifth step begins where the reference is."""
    rewards = {"each": RewardConfig(target="loop_cases:each_even_token", num_cpus=0.05)}
    config = loop_config(tmp_path / "run", model, rewards=rewards, algorithm=AlgorithmConfig(kl_coef=1e-6))
    reference = replace(config.reference, sync_every=4)
    train(replace(config, reference=reference, train=replace(config.train, num_steps=12)))
    rows = read_metrics(tmp_path / "run")[1:]
    assert all(row["reward/mean"] == row["reward/each"] == row["groups_without_signal"] == 0 for row in rows)
    share = [row["reward/each/token_values"] / row["completion/tokens"] for row in rows]
    assert sum(share[-3:]) / 3 > sum(share[:3]) / 3 + 0.1
    assert [row["step"] for row in rows if abs(row["kl"]) < 1e-8] == [1, 5, 9]
    (first, *_) = samples(tmp_path / "run")
    assert len(first["scores"]["each"]["token_values"]) == first["tokens"]


def test_engine_learner_and_reference_agree_on_the_policy_at_any_temperature(apart: RunConfig) -> None:
    first, *later = read_metrics(apart.run_dir)[1:]
    # At 1 the tiny model's tokens are nearly all as likely, 5.8 nats; at 0.5 its favourites stand out.
    assert first["entropy"] < 5.5
    assert first["logprob_max_diff"] < 1e-4 and abs(first["kl"]) < 1e-8
    assert all(row["logprob_max_diff"] < 1e-4 and row["kl"] > 1e-6 for row in later)


@ray.remote
class Other:
    """Takes room in the cluster."""

    def ready(self) -> None: ...


def metrics_so_far(run_dir: str) -> list[str]:
    path = Path(run_dir) / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def num_alive(name: str) -> int:
    return sum(a["State"] == "ALIVE" and a["ActorClassName"] == name for a in actors().values())


def wait_for(happens: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_number_of_replicas_changes_no_answer(tmp_path: Path, apart: RunConfig) -> None:
    """One, or one that is joined by a second once the cluster has room for it; a third never comes."""
    joined = tmp_path / "joined"
    rewards = {
        "even": RewardConfig(
            target="loop_cases:even_tokens_once", args={"path": str(joined)}, num_cpus=0.05, timeout_s=150
        )
    }
    rollout = replace(apart.rollout, num_replicas={"min": 1, "max": 3}, num_cpus=0.5)
    longer = replace(apart.train, num_steps=apart.train.num_steps + 3)
    two = replace(apart, run_dir=str(tmp_path / "two"), rollout=rollout, rewards=rewards, train=longer)
    other = Other.options(num_cpus=0.6).remote()
    ray.get(other.ready.remote(), timeout=60)

    def make_room() -> None:
        wait_for(lambda: len(metrics_so_far(two.run_dir)) > 1)
        ray.kill(other)
        wait_for(lambda: num_alive("RolloutWorker") == 2)
        joined.touch()

    with ThreadPoolExecutor(1) as thread:
        room = thread.submit(make_room)
        train(two)
        room.result()
    replicas = [row["rollout/replicas"] for row in read_metrics(two.run_dir)[1:]]
    assert replicas == sorted(replicas) and (replicas[0], replicas[-1]) == (1, 2)
    spans = read_spans(two.run_dir)
    assert {span.actor for span in spans if span.phase == "generate"} == {"rollout[0]", "rollout[1]"}
    texts = [
        [(row["step"], row["sample"], row["text"]) for row in samples(config.run_dir)]
        for config in (apart, two)
    ]
    assert texts[0] == texts[1][: len(texts[0])]


def test_a_learner_of_adapters_needs_no_reference_and_goes_on(tmp_path: Path, model: Path) -> None:
    config = loop_config(tmp_path / "run", model, algorithm=AlgorithmConfig(kl_coef=0.1))
    lora = LoRAConfig(rank=4, alpha=32, target_modules=("q_proj", "up_proj", "down_proj"))
    config = replace(
        config,
        learner=replace(config.learner, lora=lora, lr=1e-2),
        reference=ReferenceConfig(num_replicas=0),
        train=replace(config.train, staleness=1, groups_per_score=2),
    )
    assert [bundle.role for bundle in run_bundles(config)] == ["rollout", "learner", "reward:even"]
    train(config)
    first, *later = read_metrics(config.run_dir)[1:]
    assert abs(first["kl"]) < 1e-8
    assert len(later) == 2 and all(row["kl"] > 1e-6 for row in later)
    spans = [span for span in read_spans(config.run_dir) if span.phase == "reference_logprobs"]
    assert {span.actor for span in spans} == {"learner"} and len(spans) == 6  # two chunks a step

    # The finished run goes on: longer, in step with its updates, at another rate and for another reward.
    more = {"first": RewardConfig(target="loop_cases:first_token_even", num_cpus=0.05)}
    extended = replace(
        config,
        rewards={**config.rewards, **more},
        learner=replace(config.learner, lr=2e-2, lr_schedule="linear"),
        train=replace(config.train, staleness=0, num_steps=5),
    )
    with pytest.raises(CheckpointError, match=r"lr was 0\.01, is 0\.02; .* With --accept-changes"):
        train(extended, resume=True)
    assert train(extended, resume=True, accept_changes=True)["steps"] == 5
    rows = read_metrics(config.run_dir)[1:]
    assert rows[:3] == [first, *later] and [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["lr"] for row in rows[3:]] == pytest.approx([2e-2 * 2 / 5, 2e-2 * 1 / 5])
    assert [row["staleness/max"] for row in rows[2:]] == [1, 0, 0]
    assert "reward/first" not in rows[2] and 0 <= rows[3]["reward/first"] <= 1
    drawn = [row["prompt"] for row in samples(config.run_dir) if row["sample"] == 0]
    assert Counter(Counter(drawn).values()) == {1: 4, 2: 8}  # 20 of a stream of 12: none is left out
    noted = map(json.loads, (Path(config.run_dir) / "changes.jsonl").read_text().splitlines())
    assert [(row["step"], row["key"], row["now"]) for row in noted if row["key"] != "rewards.first"] == [
        (3, "learner.lr", 2e-2),
        (3, "learner.lr_schedule", "linear"),
        (3, "train.num_steps", 5),
        (3, "train.staleness", 0),
    ]


def test_learner_and_engine_take_turns_on_shared_resources(tmp_path: Path, apart: RunConfig) -> None:
    """On the CPU nothing is freed, but the order of calls is the one that GPUs want, and changes nothing."""
    colocated = replace(apart.cluster, colocate=True)
    together = replace(apart, run_dir=str(tmp_path / "together"), cluster=colocated)
    assert (len(run_bundles(apart)), len(run_bundles(together))) == (4, 3)  # two of reward and reference
    train(together)
    texts = [
        [(row["step"], row["sample"], row["text"]) for row in samples(config.run_dir)]
        for config in (apart, together)
    ]
    assert texts[0] == texts[1]
    spans = sorted(read_spans(together.run_dir), key=lambda span: span.start)
    order = [s.phase for s in spans if s.phase in ("sleep", "update", "wake_up", "update_weights")]
    push, update = ["wake_up", "update_weights", "wake_up"], ["update", "update"]  # at either end of the call
    assert order == ["sleep", *push, *["sleep", *update, *push] * 3]


def test_a_run_survives_its_engines_and_its_prompts(tmp_path: Path, model: Path) -> None:
    """Both replicas are killed, one after the other; a prompt does not fit; half of the groups have no
    signal. The steps are whole all the same, and everything is counted."""
    config = loop_config(
        tmp_path / "run",
        model,
        task=TargetConfig(target="loop_cases:WordTask", args={"num_prompts": 12, "num_short": 11}),
        rewards={"even": RewardConfig(target="loop_cases:slow_first_token_even", num_cpus=0.05)},
        algorithm=AlgorithmConfig(kl_coef=0.0, drop_groups_without_signal=True),
    )
    rollout = replace(config.rollout, num_replicas=2, samples_per_prompt=2, over_context="drop")
    steps = replace(config.train, staleness=1, num_steps=12, max_replaced=3)
    killer = threading.Thread(target=kill_replicas, args=(tmp_path / "run" / "metrics.jsonl",), daemon=True)
    killer.start()
    train(replace(config, rollout=rollout, train=steps))
    assert not killer.is_alive(), "no replica was killed: the test proved nothing"

    rows = read_metrics(tmp_path / "run")[1:]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["rollout/restarts"] == 2
    assert all(row["staleness/max"] <= 1 for row in rows)
    # An engine that was started anew holds the learner's weights.
    assert all(row["logprob_max_diff"] < 1e-4 for row in rows if row.get("logprob_max_diff") is not None)
    groups = Counter(row["step"] for row in samples(tmp_path / "run") if row["sample"] == 0)
    for row in rows:
        dropped, replaced = row["rollout/dropped_prompts"], row["rollout/replaced_prompts"]
        assert groups[row["step"]] == 4 - dropped + replaced
        with_signal = round(groups[row["step"]] * (1 - row["groups_without_signal"]))
        assert with_signal <= 4 and (with_signal >= 4 - dropped or replaced == 3)
    assert sum(row["rollout/replaced_prompts"] for row in rows) > 0
    assert sum(row["rollout/dropped_prompts"] for row in rows) >= 3


def kill_replicas(metrics: Path) -> None:
    """One after the second step, the other after the fourth, as the out-of-memory killer would."""
    deadline, killed = time.monotonic() + 300, set[int]()
    for step in (2, 4):
        while time.monotonic() < deadline and not (
            metrics.is_file() and f'"step": {step}' in metrics.read_text()
        ):
            time.sleep(0.005)
        workers = [
            process
            for process in psutil.Process().children(recursive=True)
            if "RolloutWorker" in " ".join(process.cmdline()) and process.pid not in killed
        ]
        workers[0].kill()
        killed.add(workers[0].pid)


def test_conversations_of_a_jsonl_train_a_text_model(tmp_path: Path, model: Path) -> None:
    turns = [
        [{"role": "user", "content": f"speech {i}?"}, {"role": "assistant", "content": "pitch"}]
        for i in range(12)
    ]
    rows = "".join(json.dumps({"messages": each, "id": i}) + "\n" for i, each in enumerate(turns))
    (tmp_path / "talk.jsonl").write_text(rows)
    args = {"train": str(tmp_path / "talk.jsonl"), "model_path": str(model), "metric": "even"}
    rewards = {
        "right": RewardConfig(target="rlcore.rewards.answers:TextMatch", num_cpus=0.05),
        "even": RewardConfig(target="loop_cases:even_tokens", num_cpus=0.05),
    }
    config = loop_config(
        tmp_path / "run",
        model,
        task=TargetConfig(target="rlcore.tasks:Rows", args=args),
        rewards=rewards,
        train=TrainConfig(num_steps=2, prompts_per_step=4),
    )
    summary = train(config)
    measured = evaluate(replace(config, model=ModelConfig(path=summary["model"])))
    asked = [row for row in read_rows(tmp_path / "run" / "samples.jsonl") if row["split"] == "eval"]
    assert {row["reference"]["answer"] for row in asked} == {"pitch"}
    last = [row for row in asked if row["step"] == 2]
    assert len(last) == 1 and len({row["prompt"] for row in asked}) == 1
    assert summary["after"]["score"] == pytest.approx(last[0]["scores"]["even"]["value"])
    assert measured["score"] == pytest.approx(summary["after"]["score"])
    assert measured["reward/right"] == last[0]["scores"]["right"]["value"]
    trained = [row for row in read_metrics(config.run_dir) if "update_skipped" in row]
    assert [row["update_skipped"] for row in trained] == [0, 0]
