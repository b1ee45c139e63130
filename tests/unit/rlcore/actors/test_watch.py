"""Frozen actors, lost replicas of the reference, and the death that explains what others raise."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import ActorID, JobID
from ray._raylet import TaskID
from ray.exceptions import ActorDiedError, OutOfMemoryError

from rlcore.actors import group as group_module
from rlcore.actors import heartbeat
from rlcore.actors import watch as watch_module
from rlcore.actors.group import ActorGroup, PendingCall
from rlcore.actors.heartbeat import forget_heartbeats, heartbeats
from rlcore.actors.processes import ActorProcess, describe
from rlcore.actors.reference_pool import ReferencePool
from rlcore.actors.watch import SILENT_LOOKS, Watch
from rlcore.config import ReferenceConfig
from rlcore.errors import ActorError, DataError, DeadlineError

STOPPED = "MainThread: score (my_rewards.py:12)"


class Patients:
    """A group of two. Each beats at every look, unless it is in `silent`; the store has what they beat last,
    and the node knows their processes."""

    name = "reward:mine"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.actors = ("first", "second")
        self.silent: set[str] = set()
        self.beats: dict[str, bytes] = {}
        self.processes = {"first": 11, "second": 12, "third": 14}
        self.killed: list[tuple[str, str]] = []
        self.asked: list[str] = []
        self._count = 0
        monkeypatch.setattr(threading.Thread, "start", lambda thread: None)  # looks when the test says so
        monkeypatch.setattr(watch_module, "heartbeats", self._heartbeats)
        monkeypatch.setattr(watch_module, "process_of", self._process_of)
        monkeypatch.setattr(watch_module, "ask_stack", self._ask_stack)
        self.watch = Watch([self])  # type: ignore[list-item]

    def look(self, times: int) -> None:
        for _ in range(times):
            self.watch.look()

    def kill(self, actor: str, reason: str) -> None:
        self.killed.append((actor, reason))

    def _heartbeats(self, actors: list[str]) -> dict[str, bytes]:
        self._count += 1
        for actor in set(actors) - self.silent:
            self.beats[actor] = b"%d %d" % (self.processes[actor], self._count)
        return {actor: self.beats[actor] for actor in actors if actor in self.beats}

    def _process_of(self, actor: str) -> ActorProcess:
        pid = self.processes[actor]
        return ActorProcess(pid=pid, address="10.0.0.2", node_id="n", is_alive=pid > 0)

    def _ask_stack(self, actor: str) -> Future[str]:
        self.asked.append(actor)
        stack: Future[str] = Future()
        stack.set_result(f"; {STOPPED}")
        return stack


@pytest.fixture
def patients(monkeypatch: pytest.MonkeyPatch) -> Patients:
    return Patients(monkeypatch)


def test_who_has_beaten_once_and_falls_silent_is_killed_once(
    patients: Patients, caplog: pytest.LogCaptureFixture
) -> None:
    patients.silent = {"second"}
    patients.look(3 * SILENT_LOOKS)  # it is still starting, or waits for a node
    patients.silent.clear()
    patients.look(1)
    patients.silent = {"second"}
    patients.look(SILENT_LOOKS - 1)
    patients.silent.clear()  # a long pause, and a sign of life
    patients.look(1)
    patients.silent = {"second"}
    patients.look(SILENT_LOOKS - 1)
    assert not patients.killed and patients.asked == ["second", "second"]
    patients.look(3 * SILENT_LOOKS)
    silence = f"process 12 gave no sign of life for 15 s; {STOPPED}"
    assert patients.killed == [("second", f"it was killed, as {silence}")]
    assert f"reward:mine[1] on 10.0.0.2 is killed: {silence}" in caplog.text


def test_who_comes_in_the_place_of_the_dead_is_given_time_to_start(patients: Patients) -> None:
    """As another actor, or as a new process of the same one."""
    patients.look(1)
    patients.silent = {"second", "third"}
    patients.look(SILENT_LOOKS - 1)
    patients.actors = ("first", "third")
    patients.look(3 * SILENT_LOOKS)
    patients.silent = {"first"}
    patients.processes["first"] = 0  # it died, and Ray starts it anew
    patients.look(3 * SILENT_LOOKS)
    patients.processes["first"] = 13  # its constructor loads a model
    patients.look(3 * SILENT_LOOKS)
    assert not patients.killed
    patients.silent.clear()
    patients.look(1)
    patients.silent = {"first"}
    patients.look(SILENT_LOOKS)
    assert [actor for actor, _ in patients.killed] == ["first"]


def test_while_the_store_is_away_nobody_is_silent(
    patients: Patients, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is the silence before added to that after, when the store has an old beat and no new one yet."""
    patients.look(1)
    patients.silent = {"first", "second"}
    patients.look(SILENT_LOOKS - 1)
    with monkeypatch.context() as away:
        away.setattr(watch_module, "heartbeats", lambda actors: 1 / 0)
        looks = iter([False] * 3 * SILENT_LOOKS + [True])
        away.setattr(patients.watch._end, "wait", lambda timeout_s: next(looks))
        patients.watch._run()
    patients.look(SILENT_LOOKS)
    assert not patients.killed
    assert caplog.text.count("no heartbeats of the actors") == 1


class Store:
    """Ray's key-value store, as far as actors beat into it."""

    def __init__(self) -> None:
        self.beats: dict[bytes, bytes] = {}

    def internal_kv_put(
        self, key: bytes, value: bytes, overwrite: bool, namespace: bytes, *, timeout: float
    ) -> None:
        assert overwrite and timeout == 5.0
        self.beats[namespace + key] = value

    def internal_kv_multi_get(
        self, keys: list[bytes], namespace: bytes, *, timeout: float
    ) -> dict[bytes, bytes]:
        return {key: self.beats[namespace + key] for key in keys if namespace + key in self.beats}

    def internal_kv_del(self, key: bytes, del_by_prefix: bool, namespace: bytes, *, timeout: float) -> None:
        assert del_by_prefix
        self.beats = {k: beat for k, beat in self.beats.items() if not k.startswith(namespace + key)}


def test_a_driver_forgets_the_beats_of_its_own_actors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster that lives on, beside another run."""
    store, context = Store(), SimpleNamespace()
    monkeypatch.setattr(heartbeat, "_store", lambda: store)
    monkeypatch.setattr(heartbeat.time, "sleep", lambda seconds: 1 / 0)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)

    def actor(job: JobID, number: int) -> Any:
        made = ActorID.of(job, TaskID.for_driver_task(job), number)
        with pytest.raises(ZeroDivisionError):  # after the first beat
            heartbeat._beat(heartbeat._key(made.hex()))
        return Handle(made)

    mine, other = JobID.from_int(1), JobID.from_int(2)
    actors = [actor(mine, 1), actor(mine, 2), actor(other, 1)]
    beat = f"{os.getpid()} 0".encode()
    assert heartbeats(actors) == dict.fromkeys(actors, beat)
    context.get_job_id = mine.hex
    forget_heartbeats()
    assert heartbeats(actors) == {actors[2]: beat}
    monkeypatch.setattr(heartbeat, "_store", lambda: 1 / 0)
    forget_heartbeats()  # a store that is gone ends no run


@dataclass(frozen=True)
class Handle:
    """Of an actor, as Ray's."""

    _actor_id: ActorID


def test_a_stack_is_told_in_one_line() -> None:
    def thread(name: str, number: int, *frames: tuple[str, str]) -> dict[str, Any]:
        told = [{"name": name, "short_filename": file, "line": 3} for name, file in frames]
        return {"thread_name": name, "os_thread_id": number, "frames": told}

    threads = [
        thread("heartbeat", 9, ("_beat", "heartbeat.py")),
        thread("engine", 8, ("wait", "threading.py"), ("_run", "my.py"), ("run", "threading.py")),
        thread("MainThread", 7, ("call", "ray/worker.py"), *[(f"f{i}", "my.py") for i in range(20)]),
        thread("PythonGCThread", 6, ("wait", "threading.py"), ("run", "ray/gc.py")),
        thread("idle", 5),
    ]
    main = " < ".join(f"f{i} (my.py:3)" for i in range(8))
    engine = "wait (threading.py:3) < _run (my.py:3) < run (threading.py:3)"
    assert describe(4, threads) == f"; threads of process 4: MainThread: {main}, engine: {engine}"
    assert describe(4, []) == ""


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
