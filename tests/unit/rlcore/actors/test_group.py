"""Calls and the rollout pool, with answers that the test gives."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError

from rlcore.actors import group as group_module
from rlcore.actors import rollout_pool
from rlcore.actors.group import ActorGroup, Inbox, PendingCall
from rlcore.actors.learner_worker import LearnerWorker
from rlcore.actors.rollout_pool import COLLECT_S, RolloutPool
from rlcore.actors.rollout_worker import RolloutReport, RolloutWorker
from rlcore.actors.spawn import _stand
from rlcore.config import RolloutConfig, RunConfig
from rlcore.errors import ActorError, ConfigError, DeadlineError
from rlcore.records.timeline import Recorder
from rlcore.types import FinishedJob, Prompt, RolloutJob
from rlcore.weight_sync.base import Push
from rlcore.weight_sync.messages import call_off

# Nobody listens there any more.
PUSH = Push(
    backend="gloo",
    version=1,
    id=1,
    engines=(0, 1),
    workers_per_engine=1,
    host="127.0.0.1",
    port=9,
    token="",
    timeout_s=1.0,
)


def call(num_ranks: int = 1, method: str = "work") -> PendingCall:
    answers: list[Future[Any]] = [Future() for _ in range(num_ranks)]
    return PendingCall("role", method, answers, list(range(num_ranks)), list)


def test_a_call_ends_with_all_answers_the_first_failure_or_its_deadline() -> None:
    whole = call(2)
    whole.answers[1].set_result("b")
    assert not whole.done()
    with pytest.raises(DeadlineError, match=r"role\[0\]\.work gave no answer within 0\.01 s"):
        whole.result(timeout_s=0.01)
    whole.answers[0].set_result("a")
    assert whole.done() and whole.result(timeout_s=0.0) == ["a", "b"]
    failing = call(2)
    failing.answers[1].set_exception(ZeroDivisionError("a kernel failed"))
    with pytest.raises(ZeroDivisionError, match="a kernel failed"):  # though rank 0 never answers
        failing.result(timeout_s=60.0)


def test_an_answer_that_is_heard_a_moment_after_the_deadline_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where this process was stopped until then, and the actor has long answered."""
    monkeypatch.setattr(group_module, "HEAR_S", 60.0)
    late = call()
    timer = threading.Timer(0.01, late.answers[0].set_result, ["updated"])
    timer.start()
    assert late.result(timeout_s=0.0) == ["updated"]
    timer.join()


def test_an_inbox_gives_calls_as_they_are_answered_and_keeps_the_rest() -> None:
    inbox, first, second, both = Inbox(), call(), call(), call(2)
    for expected in (first, second, both, second):
        inbox.expect(expected)
    assert list(inbox.take(0.0)) == []
    for answered in (second, first, both):
        answered.answers[-1].set_result(None)
    assert next(inbox.take(60.0)) is second  # and no more is iterated over
    assert list(inbox.take(60.0)) == [first, both]
    both.answers[0].set_result(None)
    assert list(inbox.take(60.0)) == [both]


class Closable:
    def close(self) -> None: ...


@pytest.mark.parametrize(("cls", "events"), [(Closable, ["close", "wait", "kill"]), (object, ["kill"])])
def test_actors_are_closed_before_they_are_killed(
    cls: type, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process frees nothing in /dev/shm."""
    seen: list[str] = []
    actor = SimpleNamespace(close=SimpleNamespace(remote=lambda: seen.append("close")))

    def wait(calls: list[Any], *, num_returns: int, timeout: float) -> None:
        assert (num_returns, timeout) == (len(calls), 5.0)
        seen.append("wait")

    monkeypatch.setattr(ActorGroup, "_spawn", lambda group, rank: actor)
    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "kill", lambda actor, no_restart: seen.append("kill"))
    group = ActorGroup("learner", cls, [{}], num_cpus=1)
    group.shutdown()
    group.shutdown()
    assert seen == events
    LearnerWorker(RunConfig(), 0).close()  # where it never started


class ScriptedGroup:
    """Replicas that answer when the test says so."""

    def __init__(self, size: int):
        self.size = size
        self.open: list[tuple[int, str, Future[Any]]] = []
        self.answers_at_once: dict[str, dict[int, Any]] = {}
        self.asked: list[tuple[int, str]] = []
        """What was answered at once."""
        self.cancelled: list[tuple[int, Any]] = []
        """Replicas, and what they were told."""

    def call_one_async(self, rank: int, method: str, *arguments: Any) -> PendingCall:
        if method == "cancel":
            self.cancelled.append((rank, *arguments))
        answer: Future[Any] = Future()
        self.open.append((rank, method, answer))
        if method in self.answers_at_once:
            self.asked.append((rank, method))
            self.answer(rank, method, self.answers_at_once[method][rank])
        return PendingCall("rollout", method, [answer], [rank], lambda results: results[0])

    def answer(self, rank: int, method: str, answer: Any) -> None:
        place = next(i for i, entry in enumerate(self.open) if entry[:2] == (rank, method))
        future = self.open.pop(place)[2]
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def waiting(self) -> list[tuple[int, str]]:
        return sorted(entry[:2] for entry in self.open)

    def restart(self, rank: int) -> None:
        """What the old one was asked will fail."""
        for _, method, _ in [entry for entry in self.open if entry[0] == rank]:
            self.answer(rank, method, ActorError("killed"))

    def stacks(self, ranks: list[int]) -> dict[int, str]:
        return dict.fromkeys(ranks, "; threads of process 7: MainThread: read (disk.py:3)")

    def where(self, ranks: Any) -> str:
        return ""


def standing_pool(size: int) -> tuple[RolloutPool, ScriptedGroup]:
    group = ScriptedGroup(size)
    pool = RolloutPool(group, RolloutConfig(max_restarts=1))  # type: ignore[arg-type]
    for rank in range(size):
        group.answer(rank, "ready", 0)
    pool.wait_until_ready(timeout_s=60)
    return pool, group


def report(*job_ids: int) -> RolloutReport:
    finished = tuple(FinishedJob(id=i, group=None, num_encoded=0) for i in job_ids)
    return RolloutReport(finished=finished, policy_version=0, num_unfinished=0, stalled_s=0.0, spans=())


def jobs(count: int) -> list[RolloutJob]:
    return [RolloutJob(id=i, prompt=Prompt(id=str(i), text=""), draw=0) for i in range(count)]


def test_each_replica_is_asked_for_finished_jobs_by_one_call_at_a_time() -> None:
    pool, group = standing_pool(2)
    assert group.waiting() == [(0, "collect"), (1, "collect")]
    pool.submit(jobs(2))
    group.answer(1, "submit", None)
    group.answer(1, "collect", report(1))
    assert [done.id for done in pool.poll(60.0)] == [1]
    assert group.waiting() == [(0, "collect"), (0, "submit"), (1, "collect")]
    assert pool.poll(0.0) == []


def test_replicas_beyond_the_fewest_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_pool, "describe_cluster", lambda: "cluster: 1 CPU")
    group, config = ScriptedGroup(2), RolloutConfig(num_replicas={"min": 1, "max": 2})

    def look() -> None:
        pool._look_at = time.monotonic() - 1.0
        pool.poll(0.0)

    pool = RolloutPool(group, config, startup_timeout_s=0.0)  # type: ignore[arg-type]
    group.answer(0, "ready", 0)
    pool.wait_until_ready(timeout_s=60)  # for the first alone
    for _ in range(3):
        look()
    assert pool.standing == [0] and group.waiting() == [(0, "collect"), (1, "ready")]
    pool.submit(jobs(2))
    group.answer(1, "ready", 0)  # the cluster has room now
    look()
    pool.submit([RolloutJob(id=5, prompt=Prompt(id="5", text=""), draw=0)])
    assert pool.standing == [0, 1] and (1, "submit") in group.waiting()
    group.answer(0, "collect", ActorError("the node died"))
    for _ in range(3):
        look()  # there is no place for another one, and none is needed
    assert pool.standing == [1] and pool.num_restarts == 1
    group.answer(1, "collect", ActorError("the node died"))
    with pytest.raises(ActorError) as ended:
        for _ in range(3):
            look()
    assert str(ended.value).startswith(
        "rollout: 0 replicas stand, rollout.num_replicas.min is 1, and no other one started within 0 s "
        "(cluster.startup_timeout_s): rollout[0] is starting with 0 prompts, rollout[1] is starting"
    )
    assert str(ended.value).endswith("cluster: 1 CPU")


def unbuildable() -> ActorDiedError:
    error = ActorDiedError()
    error._actor_init_failed = True
    return error


def test_a_replica_that_is_killed_in_its_start_is_replaced_and_one_that_cannot_be_built_is_told() -> None:
    group = ScriptedGroup(2)
    pool = RolloutPool(group, RolloutConfig(max_restarts=1))  # type: ignore[arg-type]
    group.answer(0, "ready", 0)
    group.answer(1, "ready", ActorDiedError())
    group.answers_at_once["ready"] = {1: 0}
    pool.wait_until_ready(timeout_s=60)
    assert pool.standing == [0, 1] and pool.num_restarts == 1

    group = ScriptedGroup(1)
    pool = RolloutPool(group, RolloutConfig(max_restarts=1))  # type: ignore[arg-type]
    group.answer(0, "ready", unbuildable())
    with pytest.raises(ActorError, match=r"rollout\[0\] died in ready"):
        pool.wait_until_ready(timeout_s=60)
    assert pool.num_restarts == 0


def test_a_group_whose_actor_is_killed_in_its_start_is_started_anew_within_bounds() -> None:
    deaths, restarted = list[ActorDiedError](), list[str]()

    def start(group: Any) -> None:
        if deaths:
            raise ActorError("learner[1] died in start") from deaths.pop()

    group: Any = SimpleNamespace(name="learner", restart_all=lambda: restarted.append("all"))
    deaths += [ActorDiedError(), ActorDiedError()]
    _stand(group, start, max_restarts=2)
    assert len(restarted) == 2
    for fatal in ([ActorDiedError(), ActorDiedError(), ActorDiedError()], [unbuildable()]):
        restarted.clear()
        deaths[:] = fatal
        with pytest.raises(ActorError, match=r"^learner\[1\] died in start$"):
            _stand(group, start, max_restarts=2)
        assert len(restarted) == len(fatal) - 1


def test_a_media_encoder_that_hangs_counts_as_the_engine_does(caplog: pytest.LogCaptureFixture) -> None:
    worker = object.__new__(RolloutWorker)  # without an engine of its own
    worker._loop = SimpleNamespace(
        collect=lambda timeout_s: {},
        state=lambda: SimpleNamespace(num_unfinished=0, stalled_s=0.0),
        engine=SimpleNamespace(policy_version=0),
    )
    worker._encoder, worker._recorder = SimpleNamespace(stalled_s=130.0), Recorder()
    worker._failure = None
    answer = worker.collect(0.0)
    assert answer.stalled_s == 130.0
    pool, group = standing_pool(2)
    group.answer(0, "collect", answer)
    pool.poll(60.0)
    assert pool.num_restarts == 1 and pool.standing == [1]
    assert "for 130 s; threads of process 7: MainThread: read (disk.py:3)" in caplog.text


def test_who_polls_is_woken_and_loses_nothing_by_it() -> None:
    pool, group = standing_pool(1)
    pool.submit(jobs(1))
    pool.poll(0.0)  # that it stands was news, too
    learner = call()
    learner.when_done(pool.wake)
    with ThreadPoolExecutor(1) as threads:
        polling = threads.submit(pool.poll, 60.0)
        learner.answers[0].set_result(None)
        assert polling.result(timeout=30) == []  # not at its own deadline
    pool.wake()
    group.answer(0, "submit", None)
    group.answer(0, "collect", report(0))
    pool.wake()
    assert [done.id for done in pool.poll(60.0)] == [0]


def test_of_a_replaced_replica_no_call_counts_any_longer() -> None:
    pool, group = standing_pool(2)
    pool.submit(jobs(2))
    group.answer(0, "submit", ActorError("died"))
    pool.poll(60.0)  # the `collect` of the same replica fails with it: it is lost once, not twice
    pool.poll(0.0)
    assert pool.num_restarts == 1
    assert group.waiting() == [(0, "ready"), (1, "collect"), (1, "submit"), (1, "submit")]
    with pytest.raises(ActorError, match=r"rollout\[1\].*max_restarts allows no more"):
        group.answer(1, "collect", ActorError("died"))
        pool.poll(60.0)


def test_a_replica_that_gives_no_sign_of_life_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("rlcore.actors.rollout_pool.time", SimpleNamespace(monotonic=lambda: now[0]))
    pool, group = standing_pool(2)
    pool.submit(jobs(2))
    for rank in range(2):
        group.answer(rank, "submit", None)
    now[0] = COLLECT_S + RolloutConfig().hang_timeout_s
    group.answer(1, "collect", report())  # it is asked anew
    pool.poll(0.0)
    assert pool.num_restarts == 0  # an answer may take a while to arrive
    now[0] += 60.0  # this process was stopped, and has not heard yet what was answered meanwhile
    pool.poll(0.0)
    assert pool.num_restarts == 0
    now[0] += 2.0
    pool.poll(0.0)
    assert pool.num_restarts == 1 and pool.standing == [1]
    assert group.waiting() == [(0, "ready"), (1, "collect"), (1, "submit")]


def test_one_that_is_lost_has_its_time_to_start_though_others_have_long_waited_for_a_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("rlcore.actors.rollout_pool.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(rollout_pool, "describe_cluster", lambda: "cluster: 1 CPU")
    group, config = ScriptedGroup(3), RolloutConfig(num_replicas={"min": 1, "max": 3})
    pool = RolloutPool(group, config, startup_timeout_s=300.0)  # type: ignore[arg-type]
    group.answer(0, "ready", 0)
    pool.wait_until_ready(timeout_s=60)

    def poll(at: float) -> None:
        for now[0] in (at, at + 2.0):
            pool.poll(0.0)

    group.answer(0, "collect", report())
    poll(290.0)
    group.answer(0, "collect", ActorError("the node died"))
    poll(293.0)
    poll(310.0)  # the others are overdue
    assert pool.standing == [] and pool.num_restarts == 1
    with pytest.raises(ActorError, match=r"0 replicas stand.* no other one started within 300 s"):
        poll(602.0)


def test_each_replica_is_told_which_of_its_jobs_are_cancelled() -> None:
    pool, group = standing_pool(2)
    pool.submit(jobs(3))
    pool.cancel([2, 1])
    assert group.cancelled == [(0, [2]), (1, [1])]
    group.answer(0, "collect", report(0, 2))  # it came before the replica heard of it
    assert [done.id for done in pool.poll(60.0)] == [0]


def test_an_engine_that_fails_in_a_push_or_as_it_wakes_up_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever its driver raises: a replica is not the run. The push is called off for the others."""
    called_off: list[tuple[Push, str]] = []

    def watched(push: Push, reason: str) -> None:
        called_off.append((push, reason))
        call_off(push, reason)

    monkeypatch.setattr("rlcore.actors.rollout_pool.call_off", watched)
    pool, group = standing_pool(2)
    group.answers_at_once = {"wake_up": {0: None, 1: RuntimeError("out of memory")}}
    pool.wake_up("weights", timeout_s=60)
    assert pool.num_restarts == 1 and pool.standing == [0]
    pool, group = standing_pool(2)
    group.answers_at_once = {"update_weights": {0: 1, 1: RuntimeError("a kernel failed")}}
    assert pool.update_weights(PUSH, [0, 1], timeout_s=60) == [0]
    assert called_off == [(PUSH, "a kernel failed")]
    assert pool.num_restarts == 1 and pool.standing == [0]
    group.answers_at_once = {"update_weights": {0: ConfigError("unknown dtype")}}
    with pytest.raises(ConfigError, match="unknown dtype"):
        pool.update_weights(PUSH, [0], timeout_s=60)


def test_an_engine_that_was_starting_during_the_first_push_gets_no_work_with_the_base_weights() -> None:
    pool, group = standing_pool(1)
    group.answer(0, "collect", ActorError("died"))
    pool.poll(0.0)
    pool.submit(jobs(1))
    assert pool.standing == []
    pool.expect(1)
    group.answer(0, "ready", 0)
    pool.poll(60.0)
    assert pool.stale == [0] and group.waiting() == [(0, "collect")]
    group.answers_at_once = {"update_weights": {0: 1}}
    assert pool.update_weights(PUSH, [0], timeout_s=60) == [0]
    assert pool.stale == [] and group.waiting() == [(0, "collect"), (0, "submit")]


def test_engines_that_are_starting_are_put_to_sleep_too() -> None:
    pool, group = standing_pool(2)
    group.answer(1, "collect", ActorError("died"))
    pool.poll(0.0)
    group.answers_at_once = {"sleep": {0: None, 1: None}}
    with ThreadPoolExecutor(1) as threads:
        sleeping = threads.submit(pool.sleep, timeout_s=60)
        deadline = time.monotonic() + 5
        while not group.asked and time.monotonic() < deadline:
            time.sleep(0.001)
        assert group.asked == [(0, "sleep")] and not sleeping.done()
        group.answer(1, "ready", 0)
        sleeping.result(timeout=60)
    assert group.asked == [(0, "sleep"), (1, "sleep")]


def test_what_is_raised_on_purpose_leaves_the_other_answers_for_the_next_poll() -> None:
    pool, group = standing_pool(2)
    pool.submit(jobs(2))
    group.answer(0, "submit", ConfigError("prompt 0 is too long"))
    group.answer(1, "collect", report(1))
    with pytest.raises(ConfigError, match="too long"):
        pool.poll(60.0)
    assert [done.id for done in pool.poll(60.0)] == [1]
