"""The pool over real Ray actors that only pretend to generate: what it does when they hang, fail or die."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch
from pretending_worker import PretendingWorker

from rlcore.actors.group import ActorGroup
from rlcore.actors.placement import Bundle, reserve
from rlcore.actors.rollout_pool import RolloutPool
from rlcore.config import RolloutConfig, WeightSyncConfig
from rlcore.errors import ActorError, ConfigError
from rlcore.types import Group, Prompt, RolloutJob
from rlcore.weight_sync import make_sender

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    here = str(Path(__file__).parents[1] / "support")
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    ray.init(
        address="local",
        num_cpus=2,
        resources={"slot": 2},
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield
    ray.shutdown()


def make_pool(folder, size: int = 2, **settings) -> tuple[RolloutPool, ActorGroup]:
    arguments = [{"rank": rank, "folder": str(folder)} for rank in range(size)]
    group = ActorGroup("rollout", PretendingWorker, arguments, num_cpus=0.1, options={"max_concurrency": 4})
    pool = RolloutPool(group, RolloutConfig(hang_timeout_s=5.0, **settings), startup_timeout_s=100)
    pool.wait_until_ready(timeout_s=100)
    return pool, group


def jobs(*orders: str) -> list[RolloutJob]:
    return [RolloutJob(id=i, prompt=Prompt(id=f"p{i}", text=o), draw=0) for i, o in enumerate(orders)]


def collect(pool: RolloutPool, count: int) -> dict[int, Group]:
    groups: dict[int, Group] = {}
    deadline = time.monotonic() + 100
    while len(groups) < count and time.monotonic() < deadline:
        for done in pool.poll(0.1):
            assert done.id not in groups, "finished twice"
            groups[done.id] = done.group
    return groups


@pytest.mark.parametrize("order", ["die twice", "hang", "fail"])
def test_the_prompts_of_a_lost_replica_go_to_the_other_and_it_waits_for_weights(tmp_path, order) -> None:
    pool, group = make_pool(tmp_path)
    pool.update_weights(SimpleNamespace(version=1), [0, 1], timeout_s=60)
    pool.submit(jobs("", order, "", ""))  # replica 1 gets the second and the fourth
    groups = collect(pool, 4)
    assert {i: g.completions[0].text for i, g in groups.items()} == dict.fromkeys(range(4), "rank 0")
    deadline = time.monotonic() + 100
    while not pool.stale and time.monotonic() < deadline:
        pool.poll(0.1)
    assert pool.stale == [1] and "rollout[1] on " in pool.describe()
    assert pool.num_restarts == 1 + (order == "die twice")
    pool.submit(jobs("", ""))  # it stands, with the weights of the model's folder: no work for it
    assert {g.completions[0].text for g in collect(pool, 2).values()} == {"rank 0"}
    pool.update_weights(SimpleNamespace(version=1), [1], timeout_s=60)
    pool.submit(jobs("", ""))
    answers = [g.completions[0] for _, g in sorted(collect(pool, 2).items())]
    assert [(a.text, a.policy_version) for a in answers] == [("rank 0", 1), ("rank 1", 1)]
    group.shutdown()


def test_a_replica_lost_in_a_push_does_not_keep_the_others_from_the_weights(tmp_path) -> None:
    pool, group = make_pool(tmp_path)
    weights = {f"layer{i}": torch.full((1000,), float(i)) for i in range(4)}
    settings = WeightSyncConfig(backend="shared_memory", timeout_s=120)
    sender = make_sender(settings, [(name, tuple(w.shape)) for name, w in weights.items()], dtype="float32")
    assert sender is not None

    def push_to(ranks: list[int]) -> tuple[list[int], Exception | None]:
        push = sender.announce(1, ranks)
        with ThreadPoolExecutor(1) as thread:
            sending = thread.submit(sender.push, push, weights.items())
            return pool.update_weights(push, ranks, timeout_s=120), sending.exception()

    start = time.monotonic()
    updated, error = push_to([0, 1])
    assert updated == [] and "died in update_weights" in str(error)
    assert time.monotonic() - start < 100  # nobody waited for the push's own deadline
    assert pool.standing == pool.stale == [0] and pool.num_restarts == 1
    assert push_to([0]) == ([0], None)
    pool.submit(jobs("", ""))
    assert [g.completions[0].policy_version for g in collect(pool, 2).values()] == [1, 1]
    group.shutdown()


def test_what_is_the_users_mistake_is_raised_and_too_many_losses_end_the_run(tmp_path) -> None:
    pool, group = make_pool(tmp_path, size=1, max_restarts=0)
    pool.submit(jobs("refuse"))
    with pytest.raises(ConfigError, match="prompt p0 is too long"):
        collect(pool, 1)
    pool.submit([RolloutJob(id=7, prompt=Prompt(id="p7", text="die"), draw=0)])
    with pytest.raises(ActorError, match=r"rollout\[0\].* died in .*max_restarts allows no more"):
        collect(pool, 1)
    group.shutdown()


def test_a_replica_joins_once_the_cluster_has_room(tmp_path) -> None:
    slot = (("slot", 1.0),)
    other = reserve([Bundle(role="other", custom=slot)], timeout_s=60)
    own = reserve([Bundle(role="rollout", num_cpus=0.1, custom=slot)], timeout_s=60)
    group = ActorGroup(
        "rollout",
        PretendingWorker,
        [{"rank": rank, "folder": str(tmp_path)} for rank in range(2)],
        num_cpus=0.1,
        options={"max_concurrency": 4, "resources": {"slot": 1}},
        reservation=own,
        num_unreserved=1,
    )
    pool = RolloutPool(group, RolloutConfig(num_replicas={"min": 1, "max": 2}), startup_timeout_s=1)
    pool.wait_until_ready(timeout_s=100)
    pool.update_weights(SimpleNamespace(version=1), pool.standing, timeout_s=60)
    until = time.monotonic() + 4  # longer than one that is needed may take
    while time.monotonic() < until:
        pool.poll(0.1)
    assert pool.standing == [0]
    other.release()
    while not pool.stale:
        pool.poll(0.1)
    pool.submit(jobs("", ""))  # while the new one has no weights
    assert {g.completions[0].text for g in collect(pool, 2).values()} == {"rank 0"}
    pool.update_weights(SimpleNamespace(version=1), pool.stale, timeout_s=60)
    pool.submit(jobs("", ""))
    assert [g.completions[0].text for _, g in sorted(collect(pool, 2).items())] == ["rank 0", "rank 1"]
    assert pool.num_restarts == 0
    group.shutdown()
    own.release()


def test_cancelled_jobs_are_not_given(tmp_path) -> None:
    pool, group = make_pool(tmp_path, size=1)
    pool.submit(jobs("", "", ""))
    pool.cancel([1])
    assert set(collect(pool, 2)) == {0, 2}
    pool.submit([RolloutJob(id=3, prompt=Prompt(id="p3", text=""), draw=0)])
    assert set(collect(pool, 1)) == {3}  # what was handed over before it would have come before it
    group.shutdown()
