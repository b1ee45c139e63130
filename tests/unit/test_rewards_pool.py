"""A reward's replicas that do not start, with a Ray that the test plays."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, RuntimeEnvSetupError

from rlcore.actors.group import ActorGroup
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
        self.answer = answer


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Replica]]:
    """Those to be started, in order."""
    waiting: list[Replica] = []

    def get(ref: Ref, *, timeout: float) -> Any:
        if isinstance(ref.answer, Exception):
            raise ref.answer
        return ref.answer

    monkeypatch.setattr(ActorGroup, "_spawn", lambda group, rank: waiting.pop(0))
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs[:1], refs[1:]))
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "kill", lambda actor, no_restart: None)
    yield waiting


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
