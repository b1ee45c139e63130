"""The replicas of one reward: batches of groups go to whichever is free, and every one comes back as scores.

A call that passes its deadline, or whose actor dies, is a failure of some group in it: the actor is started
anew, the groups of the call are dealt again one by one, and a group that fails more often than `retries`
allows gets an error for a score. So one bad group costs itself alone. Where nothing works any more (the
service is down, the GPU is gone) the pool gives up after some failures in a row: a step always ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from rlcore.actors.group import DEATHS, HEAR_S, ActorGroup, Inbox, PendingCall, last_line
from rlcore.actors.placement import Reservation, reserve, reward_bundles
from rlcore.actors.reward_worker import RewardWorker
from rlcore.config import RewardConfig
from rlcore.models.engine_environment import engine_env
from rlcore.rewards.cache import ScoreCache
from rlcore.rewards.protocol import failed_scores
from rlcore.types import Group, RewardContext, Score

logger = logging.getLogger(__name__)

MAX_RESTARTS = 10
"""How often a replica that does not start is tried again before it is left alone."""
_JOIN_S = 5.0
"""Longest that a shutdown waits for the dealing thread, which is woken."""
_LOOK_S = 5.0
"""Longest wait for news: an answer, a deadline or new groups end it before."""


@contextmanager
def open_pool(
    name: str, config: RewardConfig, *, placement_timeout_s: float, startup_timeout_s: float
) -> Iterator[RewardPool]:
    """Opens a reward's replicas, ready, for the length of the block.

    Raises:
        PlacementError: the cluster cannot hold them.
        ConfigError: the target or its arguments are wrong.
        ActorError, DeadlineError: they did not start.
    """
    reservation = reserve(reward_bundles(name, config), timeout_s=placement_timeout_s)
    pool = RewardPool(
        name,
        config,
        reservation=reservation,
        env_vars=engine_env(cpu=config.num_gpus == 0),
        startup_timeout_s=startup_timeout_s,
    )
    try:
        pool.call("ready", timeout_s=startup_timeout_s)
        yield pool
    finally:
        pool.shutdown()
        reservation.release()


@dataclass(eq=False, slots=True)
class _Work:
    """What one call of `score` has to do, and has done."""

    groups: list[Group]
    context: RewardContext
    queue: deque[tuple[int, ...]]
    scores: dict[int, list[Score]] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    failures_in_a_row: int = 0
    done: Future[None] = field(default_factory=Future)
    """Ends when every group has its scores, or the pool has shut down."""

    @property
    def is_done(self) -> bool:
        return len(self.scores) == len(self.groups)


@dataclass(frozen=True, slots=True)
class _Call:
    rank: int
    work: _Work | None
    """None: the replica is starting."""
    indices: tuple[int, ...]
    """Of the work's groups."""
    deadline: float


class RewardPool(ActorGroup):
    """A reward pool holds the actors of one reward, for any number of threads that ask for scores.

    One thread of the pool deals out what they ask for, in the order in which it came, so that no replica is
    idle while groups wait.

    Args:
        startup_timeout_s: seconds that a replica may take to start anew.
    """

    def __init__(
        self,
        name: str,
        config: RewardConfig,
        *,
        reservation: Reservation | None = None,
        env_vars: Mapping[str, str] | None = None,
        startup_timeout_s: float = 300.0,
    ):
        super().__init__(
            f"reward:{name}",
            RewardWorker,
            [{"name": name, "config": config}] * config.replicas,
            num_cpus=config.num_cpus,
            num_gpus=config.num_gpus,
            reservation=reservation,
            env_vars=env_vars,
            options={
                "resources": dict(config.resources),
                "runtime_env": dict(config.runtime_env),
                "max_concurrency": config.concurrency,
                "max_restarts": -1,
                "max_task_retries": 0,
            },
        )
        self._config, self._startup_timeout_s = config, startup_timeout_s
        self._cache = None if config.cache == "none" else ScoreCache(by_group=config.cache == "group")
        self._free = [rank for _ in range(config.concurrency) for rank in range(config.replicas)]
        self._inbox = Inbox()
        self._calls: dict[PendingCall, _Call] = {}
        """Calls without an answer."""
        self._arrived: deque[_Work] = deque()
        """What was asked for since the dealing thread last looked."""
        self._works: list[_Work] = []
        """What is not done, in the order in which it came."""
        self._lost: dict[int, str] = {}
        """Replicas that did not start, and why."""
        self._silent: deque[tuple[Any, str]] = deque()
        """Actors that give no sign of life, and what is known of each."""
        self.lost_calls: Counter[str] = Counter()
        """Calls that ended without an answer, by reason. Their groups were tried again, or failed."""
        self._num_restarts = [0] * config.replicas
        """Of each replica, since it last stood."""
        self._max_failures_in_a_row = 2 * config.replicas * config.concurrency + 2
        self._end, self._is_ending, self._has_ended = threading.Lock(), False, False
        self._failure: BaseException | None = None
        """Why the dealing thread ended before the pool did."""
        self._dealer = threading.Thread(target=self._deal, name=f"deal {self.name}", daemon=True)
        self._dealer.start()

    def ready(self, rank: int) -> PendingCall:
        """Asks a replica what it is, which it answers once it stands. Where it is killed meanwhile, Ray
        starts it anew and asks again."""
        answer = self._actors[rank].ready.options(max_task_retries=-1).remote().future()
        return PendingCall(self.name, "ready", [answer], [rank], lambda answers: answers[0], self.where)

    def score(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        """Returns one score per completion, [G][K]. What could not be scored carries an error: nothing
        that a reward does raises here."""
        # What the learner's forward pass needs is no business of a reward, and may be large.
        bare = [replace(group, media_inputs={}) for group in groups]
        if self._cache is None:
            scores = self._score(bare, context)
        else:
            scores = self._cache.score(bare, lambda missing: self._score(missing, context))
        self._report(groups, scores)
        return scores

    def _score(self, groups: list[Group], context: RewardContext) -> list[list[Score]]:
        size = self._config.batch_size or -(-len(groups) // (self.size * self._config.concurrency)) or 1
        batches = [
            tuple(range(start, min(start + size, len(groups)))) for start in range(0, len(groups), size)
        ]
        work = _Work(groups=groups, context=context, queue=deque(batches))
        if groups and self._accept(work):
            work.done.result()  # every call that it waits for has a deadline
        return [
            work.scores[i] if i in work.scores else failed_scores(group, "the run was ending")
            for i, group in enumerate(groups)
        ]

    def _accept(self, work: _Work) -> bool:
        """Hands work to the dealing thread, unless it has ended with the pool. Raises what else ended it."""
        with self._end:
            if self._failure is not None:
                raise self._failure
            if not self._has_ended:
                self._arrived.append(work)
                self._inbox.wake()
            return not self._has_ended

    def kill(self, actor: Any, reason: str) -> None:
        """Has an actor killed and started anew; its calls are dealt with as those of one that died. Any
        thread may call this."""
        self._silent.append((actor, reason))
        self._inbox.wake()

    def shutdown(self) -> None:
        """Ends the actors; who still waits for scores gets errors. Idempotent."""
        self._is_ending = True
        try:
            super().shutdown()
        finally:
            self._inbox.wake()
            if self._dealer.is_alive():
                self._dealer.join(_JOIN_S)

    def _deal(self) -> None:
        """Sends groups to replicas and takes their answers, until the pool is shut down."""
        try:
            while not self._is_ending:
                self._take_arrived()
                self._send()
                self._finish_done()
                for call in self._inbox.take(self._seconds_to_deadline()):
                    self._receive(call)
                self._end_silent()
                self._expire()
        except BaseException as error:
            # While actors are taken away anything may fail. Else it is a defect, of which all callers hear.
            self._failure = None if self._is_ending else error
        finally:
            with self._end:
                self._has_ended = True
                for work in [*self._works, *self._arrived]:
                    work.done.set_exception(self._failure) if self._failure else work.done.set_result(None)

    def _take_arrived(self) -> None:
        if self._arrived:
            self._restart_lost()
        while self._arrived:
            self._works.append(self._arrived.popleft())

    def _seconds_to_deadline(self) -> float:
        first = min((call.deadline for call in self._calls.values()), default=float("inf"))
        return min(_LOOK_S, max(0.0, first - time.monotonic()))

    def _finish_done(self) -> None:
        if self._works and not self._calls:
            reasons = "; ".join(sorted(set(self._lost.values())))
            for work in self._works:
                self._give_up(work, f"no replica is left: {reasons}")
        for work in self._works:
            if work.is_done:
                work.done.set_result(None)
        self._works = [work for work in self._works if not work.is_done]

    def _restart_lost(self) -> None:
        """What a replica lacked when it did not start may be there again by the next groups."""
        for rank, reason in list(self._lost.items()):
            if self._num_restarts[rank] < MAX_RESTARTS:
                self._num_restarts[rank] += 1
                tried = f"{self._num_restarts[rank]} of {MAX_RESTARTS}"
                logger.warning("%s: %s; it is started anew, try %s", self.name, reason, tried)
                del self._lost[rank]
                self.restart(rank)
                self._start(rank)

    def _send(self) -> None:
        for work in self._works:
            while work.queue and self._free:
                rank, indices = self._free.pop(0), work.queue.popleft()
                batch = [work.groups[i] for i in indices]
                call = self.call_one_async(rank, "score", batch, work.context)
                self._expect(call, _Call(rank, work, indices, time.monotonic() + self._config.timeout_s))

    def _expect(self, pending: PendingCall, call: _Call) -> None:
        self._calls[pending] = call
        self._inbox.expect(pending)

    def _receive(self, pending: PendingCall) -> None:
        call = self._calls.pop(pending, None)
        if call is None:
            return  # it ended with its replica
        (answer,) = pending.answers
        error = answer.exception()
        if error is None:
            self._answered(call, answer.result())
        elif isinstance(error, DEATHS) or call.work is None:
            self._died(call, last_line(error))
        else:  # what was sent or answered could not be read on the other side
            self._free.append(call.rank)
            self._failed(call, f"the call failed: {last_line(error)}")

    def _answered(self, call: _Call, answer: list[list[Score]]) -> None:
        if call.work is None:  # it has started
            self._num_restarts[call.rank] = 0
            self._free += [call.rank] * self._config.concurrency
            return
        self._free.append(call.rank)
        call.work.failures_in_a_row = 0
        call.work.scores.update(zip(call.indices, answer, strict=True))

    def _died(self, call: _Call, reason: str) -> None:
        """All calls of the replica failed with it; which of them brought it down cannot be known."""
        if self._is_ending:
            return
        lost = [call, *self._take_running(call.rank)]
        if call.work is None:
            self._lost[call.rank] = f"replica {call.rank} did not start: {reason}"
            return
        self._start(call.rank)
        for each in lost:
            self._failed(each, f"the actor died while scoring: {reason}")

    def _end_silent(self) -> None:
        while self._silent:
            actor, reason = self._silent.popleft()
            if actor in self._actors:
                rank = self._actors.index(actor)
                ray.kill(actor, no_restart=False)
                lost = self._take_running(rank)
                self._start(rank)
                for call in lost:
                    if call.work is not None:
                        self._failed(call, reason)

    def _expire(self) -> None:
        """Ends the calls that passed their deadline, with their replicas."""
        now = time.monotonic()
        expired = [(pending, call) for pending, call in self._calls.items() if call.deadline <= now]
        if not expired:
            return
        where = self.stacks({call.rank for _, call in expired if call.work is not None})
        for pending in self._inbox.take(HEAR_S):
            self._receive(pending)
        self._end_silent()  # who is killed for two reasons is killed once
        for pending, call in expired:
            if self._calls.pop(pending, None) is None:
                continue  # it was answered meanwhile, or went with another call of its replica
            if call.work is None:
                self._lost[call.rank] = (
                    f"replica {call.rank} did not start within {self._startup_timeout_s:g} s"
                )
                ray.kill(self._actors[call.rank], no_restart=True)
                continue
            ray.kill(self._actors[call.rank], no_restart=False)
            others = self._take_running(call.rank)
            self._start(call.rank)
            late = f"no answer within timeout_s = {self._config.timeout_s:g} s"
            reason = f"{late}; the actor was killed{where[call.rank]}"
            for other in others:
                if other.deadline <= now:
                    self._failed(other, reason)
                elif other.work is not None:
                    other.work.queue.appendleft(other.indices)  # it did nothing wrong
            self._failed(call, reason)

    def _failed(self, call: _Call, reason: str) -> None:
        work = call.work
        assert work is not None, "a start that failed is no failed call"
        work.failures_in_a_row += 1
        self.lost_calls[reason] += 1
        if len(call.indices) > 1:
            work.queue.extend((i,) for i in call.indices)
        else:
            (i,) = call.indices
            work.attempts[i] = work.attempts.get(i, 0) + 1
            if work.attempts[i] <= self._config.retries:
                work.queue.append((i,))
            else:
                work.scores[i] = failed_scores(work.groups[i], reason)
        if work.failures_in_a_row >= self._max_failures_in_a_row:
            self._give_up(work, f"given up after {work.failures_in_a_row} failed calls in a row: {reason}")

    def _give_up(self, work: _Work, reason: str) -> None:
        for indices in work.queue:
            for i in indices:
                work.scores[i] = failed_scores(work.groups[i], reason)
        work.queue.clear()

    def _take_running(self, rank: int) -> list[_Call]:
        """The calls of a replica that is gone, no longer waited for; its slots are gone too."""
        self._free = [free for free in self._free if free != rank]
        lost = [pending for pending, call in self._calls.items() if call.rank == rank]
        return [self._calls.pop(pending) for pending in lost]

    def _start(self, rank: int) -> None:
        """Waits, in the loop, until Ray has started the replica anew."""
        self._expect(self.ready(rank), _Call(rank, None, (), time.monotonic() + self._startup_timeout_s))

    def _report(self, groups: Sequence[Group], scores: Sequence[Sequence[Score]]) -> None:
        """One warning a step: metrics have the count, samples.jsonl every failure."""
        failed = [
            f"completion {k} of prompt {group.prompt.id!r}: {score.error}"
            for group, row in zip(groups, scores, strict=True)
            for k, score in enumerate(row)
            if score.error is not None
        ]
        if failed:
            logger.warning("%s failed on %d completions; the first: %s", self.name, len(failed), failed[0])
