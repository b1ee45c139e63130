"""Pushes of weights, with engines that are lost and a learner that fails when the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rlcore.actors.crew import Actors
from rlcore.config import (
    ClusterConfig,
    LearnerConfig,
    LoRAConfig,
    RolloutConfig,
    RunConfig,
    TrainConfig,
    WeightSyncConfig,
)
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


LOADED = {name: f"{name} as loaded" for name in ("embed", "q", "k", "v", "head")}


class Pool:
    """Where `is_lost`, the last replica is lost in the first push, of which the others may then hold half."""

    def __init__(self, standing: list[int], stale: list[int], is_lost: bool = False):
        self.standing, self.stale, self._is_lost = standing, stale, is_lost
        self.pushed: list[list[int]] = []
        self.asked: list[str] = []
        self.held = {rank: dict(LOADED) for rank in standing}
        """Digests of what each engine holds."""
        self.brings = dict(LOADED)
        """Digests of what a push brings."""
        self.expected: list[int] = []

    def update_weights(self, push: str, ranks: list[int], *, timeout_s: float) -> list[int]:
        self.pushed.append(ranks)
        if self._is_lost:
            self._is_lost, self.stale = False, ranks[:-1]
            return []
        self.stale = []
        for rank in ranks:
            self.held[rank] = {**self.held[rank], **self.brings}
        return ranks

    def weight_digests(self, *, timeout_s: float) -> dict[int, dict[str, str]]:
        self.asked.append("digests")
        return {rank: dict(self.held[rank]) for rank in self.standing}

    def forget_weights(self, *, timeout_s: float) -> None:
        self.asked.append("forget")
        self.held = {rank: dict.fromkeys(held, "zero") for rank, held in self.held.items()}

    def sleep(self, *, timeout_s: float) -> None:
        self.asked.append("sleep")

    def wake_up(self, what: str, *, timeout_s: float) -> None:
        self.asked.append(f"wake {what}")

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


def pushes(pool: Pool, learner: Learner, config: RunConfig | None = None, version: int = 1) -> WeightPush:
    actors = Actors(rollout=pool, rewards={}, learner=learner, reference=None)  # type: ignore[arg-type]
    made = WeightPush(config or RunConfig(), actors, Recorder())
    made.version = version
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


def test_the_first_push_must_bring_what_the_engines_loaded() -> None:
    pool, learner = Pool([0, 1], []), Learner()
    chosen = pushes(pool, learner, version=0)
    chosen.push(0)
    assert pool.asked == ["digests", "forget", "digests"] and chosen.version == 1
    chosen.push(0)
    assert len(pool.asked) == 3 and chosen.version == 2


@pytest.mark.parametrize(
    ("brings", "names"),
    [
        ({"k": "k of another layer"}, "k. Every"),
        ({"embed": "zero"}, "embed. Every"),
        (dict.fromkeys(LOADED, "mixed up"), "embed, q, k and 2 more. Every"),
    ],
)
def test_a_first_push_that_brings_other_weights_or_leaves_some_out_stops_the_run(
    brings: dict[str, str], names: str
) -> None:
    pool, learner = Pool([0, 1], []), Learner()
    pool.brings = {name: digest for name, digest in {**LOADED, **brings}.items() if digest != "zero"}
    chosen = pushes(pool, learner, version=0)
    with pytest.raises(WeightSyncError, match=rf"rollout\[0\]: .* Of 5 parameters these differ: {names}"):
        chosen.push(0)
    assert chosen.version == 0


def test_engines_that_share_gpus_sleep_before_the_check() -> None:
    pool = Pool([0], [])
    config = RunConfig(cluster=ClusterConfig(colocate=True), train=TrainConfig(staleness=0))
    pushes(pool, Learner(), config, version=0).push(0)
    assert pool.asked == ["digests", "sleep", "wake weights", "forget", "digests", "wake kv_cache"]


def test_the_check_may_be_left_out_and_adapters_alone_change_no_other_weight() -> None:
    pool = Pool([0], [])
    for config in (
        RunConfig(weight_sync=WeightSyncConfig(verify_first_push=False)),
        RunConfig(rollout=RolloutConfig(engine={"load_format": "dummy"})),
        # The learner rounds what the engines, in float32, have loaded.
        RunConfig(learner=LearnerConfig(precision="bf16")),
    ):
        pushes(pool, Learner(), config, version=0).push(0)
    assert pool.asked == []
    lora = LoRAConfig(rank=4, push="adapters")
    pool.brings = {}
    pushes(pool, Learner(), RunConfig(learner=LearnerConfig(lora=lora)), version=0).push(0)
    assert pool.asked == ["digests", "digests"]


def test_a_learner_that_is_lost_in_the_first_push_leaves_the_check_to_the_next() -> None:
    pool = Pool([0], [])
    chosen = pushes(pool, Learner(ActorError("the learner died")), version=0)
    with pytest.raises(ActorError):
        chosen.push(0)
    pool.held[0] = dict.fromkeys(LOADED, "zero")  # it had not come far
    chosen.push(0)
    assert pool.asked == ["digests", "forget", "forget", "digests"] and chosen.version == 1
