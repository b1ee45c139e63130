"""Pushes of weights, with engines that are lost and a learner that fails when the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rlcore.actors.crew import Actors
from rlcore.config import RunConfig
from rlcore.errors import ActorError, DeadlineError, WeightSyncError
from rlcore.loop.weight_push import WeightPush
from rlcore.records.timeline import Recorder


class Learner:
    """Writes down what it is asked; its first pushes end with `errors`."""

    def __init__(self, *errors: Exception):
        self.asked: list[tuple[Any, ...]] = []
        self._errors = list(errors)

    def call_one(self, rank: int, method: str, *arguments: Any, timeout_s: float) -> str:
        self.asked.append((method, *arguments))
        return "a push"

    def call_async(self, method: str, push: str) -> SimpleNamespace:
        self.asked.append((method, push))

        def result(timeout_s: float) -> None:
            if self._errors:
                raise self._errors.pop(0)

        return SimpleNamespace(result=result)


class Pool:
    """Where `is_lost`, the last replica is lost in the first push, of which the others may then hold half."""

    def __init__(self, standing: list[int], stale: list[int], is_lost: bool = False):
        self.standing, self.stale, self._is_lost = standing, stale, is_lost
        self.pushed: list[list[int]] = []
        self.expected: list[int] = []

    def update_weights(self, push: str, ranks: list[int], *, timeout_s: float) -> list[int]:
        self.pushed.append(ranks)
        if self._is_lost:
            self._is_lost, self.stale = False, ranks[:-1]
            return []
        self.stale = []
        return ranks

    def expect(self, version: int) -> None:
        self.expected.append(version)


class EndedPool(Pool):
    """One that may lose no more replicas, and does."""

    def update_weights(self, push: str, ranks: list[int], *, timeout_s: float) -> list[int]:
        raise ActorError("max_restarts allows no more")


@pytest.fixture
def called_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Pushes, and why."""
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr("rlcore.loop.weight_push.call_off", lambda push, reason: seen.append((push, reason)))
    yield seen


def pushes(pool: Pool, learner: Learner) -> WeightPush:
    actors = Actors(rollout=pool, rewards={}, learner=learner, reference=None)  # type: ignore[arg-type]
    made = WeightPush(RunConfig(), actors, Recorder())
    made.version = 1
    return made


def test_where_an_engine_is_lost_in_a_push_the_others_are_pushed_to_again() -> None:
    pool, learner = Pool([0, 1, 2], [], is_lost=True), Learner(WeightSyncError("called off"))
    chosen = pushes(pool, learner)
    chosen.push(0)
    assert pool.pushed == [[0, 1, 2], [0, 1]] and chosen.version == 2
    assert learner.asked == [
        ("announce_push", 2, [0, 1, 2], 1),
        ("push_weights", "a push"),
        ("announce_push", 2, [0, 1], 1),
        ("push_weights", "a push"),
    ]


def test_a_push_that_fails_though_no_engine_was_lost_ends_the_run() -> None:
    chosen = pushes(Pool([0], []), Learner(WeightSyncError("the layouts differ")))
    with pytest.raises(WeightSyncError, match="the layouts differ"):
        chosen.push(0)
    assert chosen.version == 1


@pytest.mark.parametrize(
    ("learners", "cause"),
    [
        (WeightSyncError("called off"), "max_restarts allows no more"),
        (DeadlineError("no answer within 60 s"), "max_restarts allows no more"),
        (ActorError("the learner died"), "the learner died"),
    ],
)
def test_a_push_that_the_engines_end_is_called_off_and_the_cause_is_the_runs_error(
    learners: Exception, cause: str, called_off: list[tuple[str, str]]
) -> None:
    chosen = pushes(EndedPool([0], []), Learner(learners))
    with pytest.raises(ActorError, match=cause):
        chosen.push(0)
    assert called_off == [("a push", "max_restarts allows no more")] and chosen.version == 1


def test_engines_that_were_started_anew_get_the_version_that_counts() -> None:
    pool, learner = Pool([0, 1], [1]), Learner()
    chosen = pushes(pool, learner)
    chosen.restore(0)
    assert learner.asked == [("announce_push", 1, [1], 1), ("push_weights", "a push")]
    assert pool.pushed == [[1]] and chosen.version == 1


def test_where_no_engine_stands_the_next_version_is_what_it_will_have_to_hold() -> None:
    pool, learner = Pool([], []), Learner()
    chosen = pushes(pool, learner)
    chosen.push(0)
    assert pool.expected == [2] and chosen.version == 2
    assert learner.asked == pool.pushed == []
