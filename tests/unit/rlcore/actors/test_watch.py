"""Frozen actors, lost replicas of the reference, and the death that explains what others raise."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError

from rlcore.actors import group as group_module
from rlcore.actors.group import ActorGroup, PendingCall
from rlcore.actors.reference_pool import ReferencePool
from rlcore.actors.watch import SILENT_LOOKS, Watch
from rlcore.config import ReferenceConfig
from rlcore.errors import ActorError, DataError, DeadlineError


class Patients:
    """A group of two, one of which answers pings when the test says so."""

    name = "learner"

    def __init__(self) -> None:
        self.actors = ("first", "second")
        self.pings: dict[str, Future[None]] = {}
        self.killed: list[tuple[str, str]] = []

    def ping(self, actor: str) -> Future[None]:
        self.pings[actor] = Future()
        if actor == "first":
            self.pings[actor].set_result(None)
        return self.pings[actor]

    def where(self, ranks: list[int]) -> str:
        return " on 10.0.0.2"

    def kill(self, actor: str, reason: str) -> None:
        self.killed.append((actor, reason))
        self.pings[actor].set_exception(ActorDiedError())


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """One that looks when the test says so."""
    monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
    return Watch([Patients()])  # type: ignore[list-item]


def look(watch: Watch, times: int) -> None:
    for _ in range(times):
        watch.look()


def test_who_has_answered_once_and_falls_silent_is_killed_once(watch: Watch) -> None:
    (patients,) = watch._groups
    look(watch, 3 * SILENT_LOOKS)  # it is still starting, or waits for a node
    patients.pings["second"].set_result(None)
    look(watch, SILENT_LOOKS)
    assert not patients.killed
    patients.pings["second"].set_result(None)  # a long pause, and a sign of life
    look(watch, SILENT_LOOKS)
    assert not patients.killed
    look(watch, 3 * SILENT_LOOKS)
    assert patients.killed == [("second", "it was killed, as it gave no sign of life for 15 s")]


def test_who_comes_in_the_place_of_the_dead_is_given_time_to_start(watch: Watch) -> None:
    (patients,) = watch._groups
    look(watch, 1)
    patients.pings["second"].set_result(None)
    look(watch, SILENT_LOOKS - 1)
    patients.actors = ("first", "third")
    look(watch, 3 * SILENT_LOOKS)
    assert not patients.killed


def call(*answers: Any) -> PendingCall:
    futures: list[Future[Any]] = [Future() for _ in answers]
    for future, answer in zip(futures, answers, strict=True):
        if isinstance(answer, Exception):
            future.set_exception(answer)
        elif answer is not None:
            future.set_result(answer)
    return PendingCall("learner", "update", futures, list(range(len(futures))), list)


def test_a_death_is_told_before_the_broken_connections_that_it_leaves() -> None:
    """Whichever of them is heard of first."""
    broken = RuntimeError("gloo: connection closed by peer")
    for late in (ActorDiedError(), OutOfMemoryError("Task was killed due to the node running low on memory")):
        update = call(broken, None, "updated")
        timer = threading.Timer(0.05, update.answers[1].set_exception, [late])
        timer.start()
        with pytest.raises(ActorError, match=r"learner\[1\] died in update") as lost:
            update.result(timeout_s=60)
        assert lost.value.role == "learner"
        timer.join()


def test_what_a_rank_raises_on_purpose_is_told_at_once_and_a_defect_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(DataError):
        call(DataError("a sample is too long"), None).result(timeout_s=60)
    monkeypatch.setattr(group_module, "_CAUSE_S", 0.05)
    with pytest.raises(ZeroDivisionError):  # rank 1 lives, and waits for rank 0 for ever
        call(ZeroDivisionError(), None).result(timeout_s=60)
    assert call(ZeroDivisionError(), None).done() and not call("updated", None).done()
    with pytest.raises(DeadlineError) as late:
        call("updated", None).result(timeout_s=0.01)
    assert late.value.role == "learner"


class Replica:
    """Answers with its number; those whose number is in `dead` are lost in their first call."""

    def __init__(self, number: int, dead: set[int]):
        self.number, self.dead = number, dead

    def __getattr__(self, method: str) -> Any:
        def remote(items: list[int]) -> Any:
            answer: Future[Any] = Future()
            if self.number in self.dead:
                answer.set_exception(ActorDiedError())
            else:
                answer.set_result([(item, self.number) for item in items])
            return type("Ref", (), {"future": lambda ref: answer})()

        return type("Method", (), {"remote": staticmethod(remote)})()


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ReferencePool]:
    """A pool of two replicas, which are numbered as they start; `dead` are the numbers that die."""

    def build(*dead: int) -> ReferencePool:
        numbers = iter(range(100))
        monkeypatch.setattr(ActorGroup, "_spawn", lambda group, rank: Replica(next(numbers), set(dead)))
        monkeypatch.setattr(ActorGroup, "where", lambda group, ranks: "")
        monkeypatch.setattr(ray, "kill", lambda actor, no_restart: None)
        return ReferencePool([{}, {}], ReferenceConfig(max_restarts=2))

    return build


def test_a_lost_replica_of_the_reference_is_replaced_and_its_shard_asked_again(
    pool: Callable[..., ReferencePool],
) -> None:
    made = pool(1, 2)
    scored = made.call_shards("logprobs", [10, 11, 12], timeout_s=60)
    assert scored == [(10, 0), (11, 3), (12, 0)]  # replica 1 was lost, and 2 in its place
    assert made.num_restarts == 2
    assert made.call_shards("logprobs", [10, 11], timeout_s=60) == [(10, 0), (11, 3)]


def test_threads_that_lose_the_same_replica_replace_it_once(pool: Callable[..., ReferencePool]) -> None:
    made = pool()
    lost = made.actors[1]
    for _ in range(2):
        made._replace(1, lost, ActorError("reference[1] died in logprobs"))
    assert made.num_restarts == 1


def test_too_many_losses_of_the_reference_end_the_call(pool: Callable[..., ReferencePool]) -> None:
    with pytest.raises(
        ActorError, match=r"reference\[1\] died in logprobs.*number 3 to be lost and reference.max"
    ):
        pool(1, 2, 3).call_shards("logprobs", [10, 11], timeout_s=60)
