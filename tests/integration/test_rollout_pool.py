"""The pool over real Ray actors that only pretend to generate: what it does when they hang, fail or die."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import ray
import torch

from rlcore.actors.group import ActorGroup
from rlcore.actors.rollout import RolloutReport
from rlcore.actors.rollout_pool import RolloutPool
from rlcore.config import RolloutConfig, WeightSyncConfig
from rlcore.errors import ActorError, ConfigError
from rlcore.types import Completion, FinishedJob, Group, Prompt, RolloutJob
from rlcore.weight_sync import make_sender
from rlcore.weight_sync.base import Push
from rlcore.weight_sync.receiver import Receiver

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class PretendingWorker:
    """Answers each prompt with its own rank; a prompt's text is an order. `folder` remembers which orders
    were obeyed, so that whoever gets the prompt next only answers it."""

    def __init__(self, rank: int, folder: str):
        self._rank, self._folder, self._version = rank, folder, 0
        self._jobs: list[RolloutJob] = []
        self._stalled = False
        self._receiver = Receiver("shared_memory")
        if os.path.exists(f"{folder}/dies_at_start"):
            os.remove(f"{folder}/dies_at_start")
            os._exit(1)

    def ready(self) -> int:
        return self._version

    def submit(self, jobs, policy_version: int) -> None:
        assert policy_version == self._version
        for job in jobs:
            order, path = job.prompt.text, f"{self._folder}/{job.id}"
            if order in ("die twice", "die", "hang", "fail") and not os.path.exists(path):
                open(path, "w").close()
                if order == "die twice":
                    open(f"{self._folder}/dies_at_start", "w").close()
                if order.startswith("die"):
                    os._exit(1)
                if order == "fail":
                    raise ZeroDivisionError("a kernel failed")
                self._stalled = True
            elif order == "refuse":
                raise ConfigError(f"prompt {job.prompt.id} is too long")
            self._jobs.append(job)

    def collect(self, timeout_s: float) -> RolloutReport:
        time.sleep(0.02)
        jobs, self._jobs = ([], self._jobs) if self._stalled else (self._jobs, [])
        return RolloutReport(
            finished=tuple(FinishedJob(id=job.id, group=self._group(job), num_encoded=1) for job in jobs),
            policy_version=self._version,
            num_unfinished=len(self._jobs),
            stalled_s=9.0 if self._stalled else 0.0,
            spans=(),
        )

    def cancel(self, job_ids) -> None:
        self._jobs = [job for job in self._jobs if job.id not in job_ids]

    def update_weights(self, push) -> int:
        if isinstance(push, Push):
            if self._rank == 1:
                os._exit(1)
            self._receiver.take(push, engine=self._rank, accept=list, load=lambda _, parts: list(parts))
        self._version = push.version
        return self._version

    def _group(self, job: RolloutJob) -> Group:
        answer = Completion(
            token_ids=(self._rank,),
            logprobs=(0.0,),
            text=f"rank {self._rank}",
            finish_reason="stop",
            policy_version=self._version,
        )
        return Group(prompt=job.prompt, prompt_token_ids=(1,), completions=(answer,))


def make_pool(folder, size: int = 2, **settings) -> tuple[RolloutPool, ActorGroup]:
    arguments = [{"rank": rank, "folder": str(folder)} for rank in range(size)]
    group = ActorGroup("rollout", PretendingWorker, arguments, num_cpus=0.1, options={"max_concurrency": 4})
    pool = RolloutPool(group, RolloutConfig(hang_timeout_s=5.0, **settings), startup_timeout_s=100)
    pool.wait_until_ready(timeout_s=100)
    return pool, group


def jobs(*orders: str) -> list[RolloutJob]:
    return [RolloutJob(id=i, prompt=Prompt(id=f"p{i}", text=o), draw=0) for i, o in enumerate(orders)]


def collect(pool: RolloutPool, count: int, *, until: float = 100) -> dict[int, Group]:
    groups: dict[int, Group] = {}
    deadline = time.monotonic() + until
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
    settings = WeightSyncConfig(backend="shared_memory", timeout_s=60)
    sender = make_sender(settings, [(name, tuple(w.shape)) for name, w in weights.items()], dtype="float32")
    assert sender is not None

    def push_to(ranks: list[int]) -> tuple[list[int], Exception | None]:
        push = sender.announce(1, ranks)
        with ThreadPoolExecutor(1) as thread:
            sending = thread.submit(sender.push, push, weights.items())
            return pool.update_weights(push, ranks, timeout_s=60), sending.exception()

    start = time.monotonic()
    updated, error = push_to([0, 1])
    assert updated == [] and "died in update_weights" in str(error)
    assert time.monotonic() - start < 30  # nobody waited for the push's own deadline
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


def test_cancelled_jobs_are_not_given(tmp_path) -> None:
    pool, group = make_pool(tmp_path, size=1)
    pool.submit(jobs("", "", ""))
    pool.cancel([1])
    assert set(collect(pool, 3, until=1.0)) == {0, 2}
    group.shutdown()
