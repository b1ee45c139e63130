"""A reward's replicas that fail, hang or do not start, with a Ray that the test plays."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, RuntimeEnvSetupError

from rlcore.actors.group import ActorGroup, PendingCall
from rlcore.actors.reward_pool import MAX_RESTARTS, RewardPool
from rlcore.config import RewardConfig
from rlcore.types import Completion, Group, Prompt, RewardContext, Score

ANSWER = Completion(token_ids=(1,), logprobs=(0.0,), text="", finish_reason="stop", policy_version=0)
GROUPS = [Group(prompt=Prompt(id="p", text=""), prompt_token_ids=(1,), completions=(ANSWER,))]
BROKEN = RuntimeEnvSetupError("the index of packages is down")


class Replica:
    """Scores every group with 1, or fails."""

    def __init__(self, *, ready: Any = None, score: Exception | None = None):
        self.ready = self._method(lambda: ready)
        self.score = self._method(lambda groups, context: score or [[Score(1.0)] for _ in groups])

    def _method(self, answer: Callable[..., Any]) -> Any:
        def remote(*arguments: Any) -> Ref:
            return Ref(answer(*arguments))

        return SimpleNamespace(remote=remote, options=lambda **options: SimpleNamespace(remote=remote))


class Ref:
    """To a call, which has its answer already."""

    def __init__(self, answer: Any):
        self._answer = answer

    def future(self) -> Future[Any]:
        future: Future[Any] = Future()
        if isinstance(self._answer, Exception):
            future.set_exception(self._answer)
        else:
            future.set_result(self._answer)
        return future


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Replica]]:
    """Those to be started, in order."""
    waiting: list[Replica] = []
    monkeypatch.setattr(ActorGroup, "_spawn", lambda group, rank: waiting.pop(0))
    monkeypatch.setattr(ray, "kill", lambda actor, no_restart: None)
    yield waiting


class SlowReplica(Replica):
    """Answers a group after as many seconds as its prompt has in `seconds`, on a clock of its own."""

    def __init__(self, seconds: Mapping[str, float]):
        super().__init__()
        self.now, self._seconds = 0.0, seconds
        self.asked: list[tuple[str, float]] = []
        """Prompts, and when."""
        self.due: dict[Future[Any], float] = {}
        """When each answer is there."""

    def remote_score(self, groups: list[Group], context: RewardContext) -> SimpleNamespace:
        (group,) = groups
        self.asked.append((group.prompt.id, self.now))
        answer: Future[Any] = Future()
        answer.set_result([[Score(1.0)]])
        self.due[answer] = self.now + self._seconds[group.prompt.id]
        return SimpleNamespace(future=lambda: answer)


class SlowInbox:
    """An inbox on the replica's clock: what is waited for comes when it is due."""

    def __init__(self, replica: SlowReplica):
        self._replica, self._expected = replica, list[PendingCall]()
        self._woken = threading.Event()

    def expect(self, call: PendingCall) -> None:
        self._expected.append(call)

    def wake(self) -> None:
        self._woken.set()

    def forget(self) -> None:
        """The replica is killed, and what it was asked with it."""
        self._expected.clear()

    def take(self, timeout_s: float) -> list[PendingCall]:
        if not self._expected:
            self._woken.wait(timeout_s)
            self._woken.clear()
            return []
        due = {call: self._replica.due.get(call.answers[0], self._replica.now) for call in self._expected}
        first = min(self._expected, key=due.__getitem__)
        if due[first] > self._replica.now + timeout_s:
            self._replica.now += timeout_s
            return []
        self._replica.now = max(self._replica.now, due[first])
        self._expected.remove(first)
        return [first]


@pytest.fixture
def slow_replica(replicas: list[Replica], monkeypatch: pytest.MonkeyPatch) -> SlowReplica:
    replica = SlowReplica({"hang": math.inf, "quick": 5.0, "a": 8.0, "b": 8.0, "c": 8.0})
    replica.score = SimpleNamespace(remote=replica.remote_score)
    replicas.append(replica)
    inbox = SlowInbox(replica)
    monkeypatch.setattr("rlcore.actors.reward_pool.Inbox", lambda: inbox)
    monkeypatch.setattr(ray, "kill", lambda actor, no_restart: inbox.forget())
    monkeypatch.setattr("rlcore.actors.reward_pool.time", SimpleNamespace(monotonic=lambda: replica.now))
    monkeypatch.setattr("rlcore.actors.reward_pool.HEAR_S", 0.0)
    return replica


def groups(*names: str) -> list[Group]:
    return [replace(GROUPS[0], prompt=Prompt(id=name, text="")) for name in names]


def is_scored(pool: RewardPool, *names: str) -> list[bool]:
    return [score.error is None for (score,) in pool.score(groups(*names), RewardContext())]


def only_score(pool: RewardPool) -> Score:
    ((score,),) = pool.score(GROUPS, RewardContext())
    return score


def test_a_replica_that_did_not_come_up_again_is_started_with_the_next_groups(
    replicas: list[Replica], caplog: pytest.LogCaptureFixture
) -> None:
    replicas += [Replica(score=ActorDiedError(), ready=BROKEN), Replica()]
    pool = RewardPool("mine", RewardConfig(target="a:b", retries=1))
    assert "no replica is left: replica 0 did not start: " in (only_score(pool).error or "")
    assert len(replicas) == 1
    with caplog.at_level(logging.WARNING):
        assert only_score(pool) == Score(1.0)
    assert "the index of packages is down; it is started anew, try 1 of 10" in caplog.text
    assert only_score(pool) == Score(1.0) and not replicas


def test_one_that_never_starts_is_left_alone_in_the_end(replicas: list[Replica]) -> None:
    replicas += [Replica(score=ActorDiedError(), ready=BROKEN)] * (MAX_RESTARTS + 2)
    pool = RewardPool("mine", RewardConfig(target="a:b"))
    for _ in range(MAX_RESTARTS + 5):
        assert "replica 0 did not start" in (only_score(pool).error or "")
    assert len(replicas) == 1


def test_failures_between_which_something_works_are_not_in_a_row(replicas: list[Replica]) -> None:
    replica = Replica()
    replica.score = replica._method(
        lambda groups, context: ActorDiedError() if groups[0].prompt.id == "bad" else [[Score(1.0)]]
    )
    replicas.append(replica)
    pool = RewardPool("mine", RewardConfig(target="a:b", batch_size=1, retries=0))
    assert is_scored(pool, *["bad", "good"] * 6) == [False, True] * 6
    assert is_scored(pool, *["bad"] * 4, "good") == [False] * 5  # nothing works: it is given up


def test_a_call_beside_one_that_hangs_is_not_to_blame(slow_replica: SlowReplica) -> None:
    """Two calls at a time in one actor, which goes down with both."""
    pool = RewardPool(
        "mine", RewardConfig(target="a:b", batch_size=1, retries=0, concurrency=2, timeout_s=10)
    )
    assert is_scored(pool, "hang", "quick", "a", "b", "c") == [False, True, True, True, True]
    beside = [("hang", 0.0), ("quick", 0.0), ("a", 5.0)]
    assert slow_replica.asked == [*beside, ("a", 10.0), ("b", 10.0), ("c", 18.0)]


def test_a_replica_that_was_started_anew_has_as_many_calls_at_a_time_as_before(
    slow_replica: SlowReplica,
) -> None:
    """One was running and one was free when it was killed."""
    pool = RewardPool(
        "mine", RewardConfig(target="a:b", batch_size=1, retries=0, concurrency=2, timeout_s=10)
    )
    assert is_scored(pool, "hang") == [False]
    assert is_scored(pool, "a", "b", "c") == [True, True, True]
    assert slow_replica.asked == [("hang", 0.0), ("a", 10.0), ("b", 10.0), ("c", 18.0)]


def test_an_answer_that_is_heard_late_counts(
    slow_replica: SlowReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the pool's own process was stopped for a while, and others answered meanwhile."""
    monkeypatch.setattr("rlcore.actors.reward_pool.HEAR_S", 1.0)
    pool = RewardPool("mine", RewardConfig(target="a:b", retries=0, timeout_s=7.5))
    assert is_scored(pool, "a") == [True] and not pool.lost_calls
    assert is_scored(pool, "hang") == [False]


def test_one_that_falls_silent_as_its_deadline_passes_is_killed_once(
    slow_replica: SlowReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray is starting it anew already."""
    kills, forget = list[Any](), ray.kill

    def kill(actor: Any, no_restart: bool) -> None:
        kills.append(actor)
        forget(actor, no_restart=no_restart)

    def stacks(ranks: Iterable[int]) -> dict[int, str]:
        pool.kill(slow_replica, "it was killed, as process 7 gave no sign of life")
        return dict.fromkeys(ranks, "")

    monkeypatch.setattr(ray, "kill", kill)
    pool = RewardPool("mine", RewardConfig(target="a:b", retries=0, timeout_s=10))
    monkeypatch.setattr(pool, "stacks", stacks)
    assert is_scored(pool, "hang") == [False] and is_scored(pool, "a") == [True]
    assert kills == [slow_replica]
    assert list(pool.lost_calls) == ["it was killed, as process 7 gave no sign of life"]


def test_a_defect_of_the_pool_is_told_to_every_caller(
    replicas: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as scores that failed, which a run may be told to mask."""
    replicas.append(Replica())
    pool = RewardPool("mine", RewardConfig(target="a:b"))
    monkeypatch.setattr(pool, "call_one_async", lambda *arguments: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            pool.score(GROUPS, RewardContext())


def test_who_waits_when_the_pool_ends_gets_errors(
    replicas: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so does who comes later; the dealing thread is over."""
    replica = Replica()
    never: Future[Any] = Future()
    replica.score = SimpleNamespace(remote=lambda *arguments: SimpleNamespace(future=lambda: never))
    replicas.append(replica)
    pool = RewardPool("mine", RewardConfig(target="a:b"))
    scores: list[Score] = []
    waiting = threading.Thread(target=lambda: scores.append(only_score(pool)))
    waiting.start()
    while not pool._calls:
        waiting.join(0.01)
    pool.shutdown()
    waiting.join(10)
    assert [score.error for score in (*scores, only_score(pool))] == ["the run was ending"] * 2
    assert not pool._dealer.is_alive()
