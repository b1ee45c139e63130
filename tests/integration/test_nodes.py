"""A run on three nodes with networks of their own: rollouts on one, rewards on another, the learner's ranks
on two, weights by gloo between them, and nodes that die.

Where network namespaces are not permitted, the nodes are told apart by their loopback addresses alone.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from local_nodes import LocalNodes, Namespaces, Node, wait_until, why_no_namespaces
from loop_cases import loop_config
from tiny_models import make_text

from rlcore.config import LearnerConfig, RewardConfig, RunConfig, WeightSyncConfig, save_config
from rlcore.records.tracking import read_metrics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SUPPORT = Path(__file__).resolve().parents[1] / "support"
PLACES = """
import json, ray
from ray._private.state import actors
ray.init(logging_level="ERROR", log_to_driver=False)
living = [actor for actor in actors().values() if actor["State"] == "ALIVE"]
print(json.dumps([(actor["ActorClassName"], actor["Address"]["IPAddress"]) for actor in living]))
"""


@pytest.fixture(scope="module", params=["namespaces", "loopback"])
def nodes(request: pytest.FixtureRequest) -> Iterator[LocalNodes]:
    """The head with rewards and a learner rank, a node for rollouts, one for the other rank."""
    reason = why_no_namespaces()
    if request.param == "namespaces" and reason:
        pytest.skip(f"network namespaces: {reason}")
    if request.param == "loopback" and not reason and "RLCORE_TEST_LOOPBACK" not in os.environ:
        pytest.skip("network namespaces are permitted, and show more; RLCORE_TEST_LOOPBACK=1 runs it")
    with pytest.MonkeyPatch.context() as patch:
        # Ray's workers import loop_cases by name.
        patch.setenv("PYTHONPATH", f"{SUPPORT}{os.pathsep}{SUPPORT.parents[1]}")
        nodes = LocalNodes(loopback=request.param == "loopback")
    with nodes:
        yield nodes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text(tmp_path_factory.mktemp("nodes") / "text")


def spread_config(run_dir: Path, model: Path, num_steps: int) -> RunConfig:
    """Every role on nodes of its kind."""
    config = loop_config(run_dir, model)
    even = RewardConfig(target="loop_cases:even_tokens", num_cpus=0.05, resources={"reward_node": 0.1})
    return replace(
        config,
        rollout=replace(config.rollout, resources={"rollout_node": 1.0}),
        rewards={"even": even},
        learner=LearnerConfig(
            num_ranks=2, num_cpus=0.4, lr=3e-3, timeout_s=60, resources={"learner_node": 1.0}
        ),
        weight_sync=WeightSyncConfig(backend="gloo", timeout_s=30),
        train=replace(config.train, num_steps=num_steps, checkpoint_every=1),
    )


def start_run(nodes: LocalNodes, config: RunConfig, *words: str) -> subprocess.Popen[str]:
    """`rlcore train` on the first node; it writes into `run.log` of the run's folder."""
    folder = Path(config.run_dir)
    save_config(config, folder / "run.yaml")
    command = [sys.executable, "-m", "rlcore.cli", "train", "--config", str(folder / "run.yaml"), *words]
    with (folder / "run.log").open("a") as log:
        return nodes.popen(command, stdout=log, stderr=log)


def wait_for_steps(config: RunConfig, running: subprocess.Popen[str], count: int, timeout_s: float) -> None:
    folder = Path(config.run_dir)

    def are_there() -> bool:
        assert running.poll() is None, (folder / "run.log").read_text()
        return (folder / "metrics.jsonl").is_file() and len(steps_of(config)) >= count

    wait_until(are_there, timeout_s, f"step {count}")


def steps_of(config: RunConfig) -> list[dict[str, Any]]:
    return [row for row in read_metrics(Path(config.run_dir)) if "policy_version" in row]


def places(nodes: LocalNodes, **environment: str) -> subprocess.Popen[str]:
    """Asks the cluster which living actor is where."""
    command = [sys.executable, "-c", PLACES]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return nodes.popen(command, env={**nodes.environment, **environment}, **streams)


def answer(asked: subprocess.Popen[str]) -> list[list[str]]:
    out, error = asked.communicate(timeout=60)
    assert asked.returncode == 0, error
    return sorted(json.loads(out))


def test_a_run_spreads_over_nodes(nodes: LocalNodes, model: Path, tmp_path: Path) -> None:
    config = spread_config(tmp_path / "run", model, num_steps=4)
    running = start_run(nodes, config)
    (tmp_path / "other").write_text(secrets.token_hex(32))
    stranger = places(nodes, RAY_AUTH_TOKEN_PATH=str(tmp_path / "other"))
    wait_for_steps(config, running, 1, timeout_s=150)
    asked = places(nodes)
    head, second, third = (nodes.hosts.address(index) for index in range(3))
    assert answer(asked) == [
        ["LearnerWorker", head],
        ["LearnerWorker", third],
        ["RewardWorker", head],
        ["RolloutWorker", second],
    ]
    _, error = stranger.communicate(timeout=60)
    assert stranger.returncode != 0 and "InvalidAuthToken" in error, error
    assert running.wait(60) == 0, (tmp_path / "run" / "run.log").read_text()

    rows = steps_of(config)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["policy_version"] for row in rows] == [2, 3, 4, 5]  # the first push is before the first step
    # What was sampled is what the learner has: the weights of each step came whole, to another host.
    assert all(row["logprob_max_diff"] < 1e-4 for row in rows)
    assert all(row["grad_norm"] > 0 for row in rows)
    lines = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    rollouts = [row for row in map(json.loads, lines) if row["split"] == "train"]
    assert {(row["step"], row["policy_version"]) for row in rollouts} == {(n, n) for n in range(1, 5)}
    assert all(row["versions"] == [[row["step"], row["tokens"]]] for row in rollouts)


@pytest.mark.nodes
def test_a_run_outlives_a_rollout_node_and_a_learner_node(
    nodes: LocalNodes, model: Path, tmp_path: Path
) -> None:
    config = spread_config(tmp_path / "run", model, num_steps=100_000)
    config = replace(config, rollout=replace(config.rollout, num_replicas={"min": 1, "max": 2}))
    running = start_run(nodes, config)
    wait_for_steps(config, running, 2, timeout_s=150)
    assert steps_of(config)[-1]["rollout/replicas"] == 1
    nodes.start(5, Node(resources={"rollout_node": 1.0}))
    wait_until(lambda: steps_of(config)[-1]["rollout/replicas"] == 2, 150, "a second replica")
    began = time.monotonic()
    nodes.kill(1)
    wait_until(lambda: steps_of(config)[-1]["rollout/replicas"] == 1, 150, "a step on one replica")
    print(f"a step {time.monotonic() - began:.1f} s after a rollout node's death, by the other's")
    nodes.start(3, Node(resources={"rollout_node": 1.0}))
    wait_until(lambda: steps_of(config)[-1]["rollout/replicas"] == 2, 150, "a replica on the new node")
    num_steps = len(steps_of(config))
    wait_for_steps(config, running, num_steps + 2, timeout_s=150)
    rows = steps_of(config)
    # The first replacement may have been sent to the dead node, which Ray still took for a living one.
    assert rows[-1]["rollout/restarts"] in (1, 2)
    assert all(row["logprob_max_diff"] < 1e-4 for row in rows)
    assert ["RolloutWorker", nodes.hosts.address(3)] in answer(places(nodes))

    began = time.monotonic()
    if isinstance(nodes.hosts, Namespaces):
        nodes.hosts.unplug(2)  # its processes go on, and nobody hears of them
    else:
        nodes.kill(2)
    nodes.start(4, Node(resources={"learner_node": 1.0}))
    nodes.wait([4])
    num_steps = len(steps_of(config))
    wait_for_steps(config, running, num_steps + 3, timeout_s=150)  # one of them may be done again
    print(f"two more steps {time.monotonic() - began:.1f} s after a learner node's death")
    rows = steps_of(config)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    # As above: the first new learner may have been sent to the dead node.
    assert rows[-1]["learner/restarts"] in (1, 2)
    assert all(row["logprob_max_diff"] < 1e-4 for row in rows)
    assert ["LearnerWorker", nodes.hosts.address(4)] in answer(places(nodes))
    log = (tmp_path / "run" / "run.log").read_text()
    assert re.search(rf"anew, 1 of 3 times: learner\[[01]\] died in \w+ on {nodes.hosts.address(2)} ", log), (
        log
    )
