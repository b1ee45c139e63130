"""The rollout actors as one: jobs in, finished jobs out, whatever becomes of a replica in between.

Every replica is asked for its finished jobs by a call that waits in the actor, so a poll costs nothing while
nothing happens. A replica that dies, or whose engine does not come back from a step, is started anew, and its
jobs go to the others; it takes no work until it has the current weights (`rlcore.actors.dispatch`). So does
one that starts late, as the cluster had no room for it: replicas come and go while
`rollout.num_replicas.min` of them stand.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rlcore.actors.dispatch import READY, STALE, STARTING, Dispatcher
from rlcore.actors.group import ActorGroup, Inbox, PendingCall, was_killed
from rlcore.actors.placement import describe_cluster
from rlcore.actors.rollout_worker import RolloutReport
from rlcore.config import RolloutConfig
from rlcore.errors import ActorError, DeadlineError, RLCoreError, WeightSyncError
from rlcore.records.timeline import Recorder
from rlcore.types import FinishedJob, RolloutJob
from rlcore.weight_sync.base import Push
from rlcore.weight_sync.messages import call_off

logger = logging.getLogger(__name__)

COLLECT_S = 5.0
"""Longest that a replica waits for a finished job before it answers without one."""
_MARGIN_S = 30.0
"""Added to a replica's own deadlines, for a machine that is slow to answer."""
_LOOK_S = 1.0
"""Between two looks for replicas that are overdue."""
_AWAY_S = 5.0
"""A look that comes later than that is made once more: where this process was stopped (SIGSTOP), the answers
that came meanwhile are heard a moment later."""


class RolloutPool:
    """A rollout pool takes jobs and gives finished ones, from the actors of `group`, which are starting;
    those beyond `rollout.num_replicas.min` may wait for a place in the cluster.

    `startup_timeout_s` is for an actor that is started anew and cannot be done without. What the actors did
    goes into `recorder`. Methods raise what a replica raised on purpose (ConfigError, DataError), and
    ActorError once more replicas were lost than `rollout.max_restarts`, or fewer stand than the run needs.
    """

    def __init__(
        self,
        group: ActorGroup,
        config: RolloutConfig,
        *,
        startup_timeout_s: float = 300.0,
        recorder: Recorder | None = None,
    ):
        self.size, self._group, self._config = group.size, group, config
        self._startup_timeout_s = startup_timeout_s
        self._fewest = group.size - (config.max_replicas - config.min_replicas)
        """Replicas that the run cannot do without."""
        self.recorder = recorder or Recorder()
        self.num_restarts = 0
        self._dispatcher = Dispatcher(group.size)
        self._jobs: dict[int, RolloutJob] = {}
        self._calls: dict[PendingCall, float] = {}
        """Calls without an answer, and when each is overdue. A replica is waited for by `ready` or `collect`;
        other calls bring nothing, except what they may raise."""
        self._inbox = Inbox()
        self._look_at = 0.0
        """When to look again for calls that are overdue."""
        for rank in range(self.size):
            self._call(rank, "ready", overdue_s=startup_timeout_s)

    def wait_until_ready(self, *, timeout_s: float) -> None:
        """Waits until the replicas stand that the run cannot do without; one that is killed meanwhile is
        replaced. Raises DeadlineError, and what a replica's constructor raised."""
        deadline = time.monotonic() + timeout_s
        while starting := [c for c in self._calls if c.method == "ready" and c.ranks[0] < self._fewest]:
            call = starting[0]
            (rank,) = call.ranks
            try:
                version = call.result(timeout_s=max(0.0, deadline - time.monotonic()))
            except ActorError as error:
                if not was_killed(error):
                    raise
                self._lost(rank, str(error))
                continue
            del self._calls[call]
            self._started(rank, version)

    def submit(self, jobs: Sequence[RolloutJob]) -> None:
        """Hands jobs to the replicas with the least to do; jobs given together start together."""
        self._jobs |= {job.id: job for job in jobs}
        self._dispatcher.add(job.id for job in jobs)
        self._send_waiting()

    def poll(self, timeout_s: float) -> list[FinishedJob]:
        """Returns jobs that have finished, as soon as there are some; none after `timeout_s`, or where
        `wake` ended the wait. Lost replicas are dealt with here."""
        finished: list[FinishedJob] = []
        for call in self._inbox.take(timeout_s):
            # Else it is of a replica that has been replaced.
            if self._calls.pop(call, None) is not None:
                finished += self._take(call)
        now = time.monotonic()
        if now > self._look_at:
            was_away, self._look_at = now > self._look_at + _AWAY_S, now + _LOOK_S
            for call, overdue in list(self._calls.items()) if not was_away else ():
                if now > overdue and call in self._calls:
                    self._overdue(call, now)
        return finished

    def wake(self) -> None:
        """Ends a poll, the present or else the next one, because something else has come that its caller
        waits for. Any thread may call this."""
        self._inbox.wake()

    def cancel(self, job_ids: Iterable[int]) -> None:
        """Ends jobs; they will not be given by `poll`."""
        job_ids = list(job_ids)
        for job_id in job_ids:
            self._jobs.pop(job_id, None)
        for rank, jobs in self._dispatcher.cancel(job_ids).items():
            self._call(rank, "cancel", jobs)

    def expect(self, version: int) -> None:
        """Requires that a replica holds `version` before it is given work. Needed for a push that finds no
        replica standing, and so comes to no `update_weights`."""
        self._dispatcher.updated(version, [])

    def update_weights(self, push: Push, ranks: Sequence[int], *, timeout_s: float) -> list[int]:
        """Brings a push into some replicas, between two steps of their engines; what they write goes on. From
        then on its version is the one that a replica must hold to be given work.

        A replica that dies, or does not answer, is started anew and the push is called off: the others may
        hold none or half of it. Returns those that hold all of it. Raises WeightSyncError where a replica
        refused the push though none was lost.
        """
        waiting = {rank: self._group.call_one_async(rank, "update_weights", push) for rank in ranks}
        inbox = Inbox()
        for call in waiting.values():
            inbox.expect(call)
        updated, refusals, deadline = [], list[WeightSyncError](), time.monotonic() + timeout_s
        is_called_off = False
        while waiting:
            answered = list(inbox.take(deadline - time.monotonic())) or list(waiting.values())
            for call in answered:
                (rank,) = call.ranks
                del waiting[rank]
                try:
                    version = call.result(timeout_s=0.0)
                except WeightSyncError as error:
                    refusals.append(error)
                except Exception as error:
                    if _is_deliberate(error):
                        raise
                    is_called_off = True
                    call_off(push, str(error))
                    self._lost(rank, str(error))
                else:
                    assert version == push.version, (rank, version, push.version)
                    updated.append(rank)
        if refusals and not is_called_off:
            raise refusals[0]
        self._dispatcher.updated(push.version, updated)
        self._send_waiting()
        return updated

    def sleep(self, *, timeout_s: float) -> None:
        """Has all engines give their GPU memory back; nothing may be running. One that fails is started
        anew; one that is starting is waited for, as it takes its memory sooner or later."""
        self._call_standing("sleep", timeout_s=timeout_s)
        while starting := self._dispatcher.ranks(STARTING):
            self.poll(_LOOK_S)
            risen = set(starting) & set(self.standing)
            self._call_standing("sleep", timeout_s=timeout_s, ranks=sorted(risen))

    def wake_up(self, what: str, *, timeout_s: float) -> None:
        """Has all engines take the memory of `weights`, or of the `kv_cache`, again. One that fails is
        started anew."""
        self._call_standing("wake_up", what, timeout_s=timeout_s)

    def weight_digests(self, *, timeout_s: float) -> dict[int, dict[str, str]]:
        """Returns the digest of every parameter of every engine that stands, by rank and name. One that fails
        is started anew."""
        return self._call_standing("weight_digests", timeout_s=timeout_s)

    def forget_weights(self, *, timeout_s: float) -> None:
        """Sets the weights of all engines to zero, until the next push. One that fails is started anew."""
        self._call_standing("forget_weights", timeout_s=timeout_s)

    def num_unfinished(self, *, timeout_s: float) -> int:
        """Returns how many prompts are in the standing engines by their own account, those that are being
        cancelled included."""
        answers = [self._group.call_one(rank, "stats", timeout_s=timeout_s) for rank in self.standing]
        return sum(stats["num_unfinished"] for stats in answers)

    def _call_standing(
        self, method: str, *arguments: Any, timeout_s: float, ranks: Sequence[int] | None = None
    ) -> dict[int, Any]:
        """What those that did not fail answered, by rank."""
        ranks = self.standing if ranks is None else ranks
        calls = {rank: self._group.call_one_async(rank, method, *arguments) for rank in ranks}
        answers, deadline = dict[int, Any](), time.monotonic() + timeout_s
        for rank, call in calls.items():
            try:
                answers[rank] = call.result(timeout_s=max(0.0, deadline - time.monotonic()))
            except Exception as error:
                if _is_deliberate(error):
                    raise
                self._lost(rank, str(error))
        return answers

    @property
    def standing(self) -> list[int]:
        """Returns the replicas that can take weights."""
        return self._dispatcher.ranks(READY, STALE)

    @property
    def stale(self) -> list[int]:
        """Returns the replicas that wait for the current weights."""
        return self._dispatcher.ranks(STALE)

    def describe(self) -> str:
        """Returns who is doing what, for errors."""
        states = (STARTING, STALE, READY)
        state_of = {rank: state for state in states for rank in self._dispatcher.ranks(state)}
        return ", ".join(
            f"rollout[{rank}]{self._group.where([rank])} is {state_of[rank]} with "
            f"{self._dispatcher.num_jobs(rank)} prompts"
            for rank in range(self.size)
        )

    def _send_waiting(self) -> None:
        for rank, job_ids in self._dispatcher.assign().items():
            jobs = [self._jobs[job_id] for job_id in job_ids]
            self._call(rank, "submit", jobs, self._dispatcher.version)

    def _call(self, rank: int, method: str, *arguments: Any, overdue_s: float = math.inf) -> None:
        call = self._group.call_one_async(rank, method, *arguments)
        self._calls[call] = time.monotonic() + overdue_s
        self._inbox.expect(call)

    def _collect(self, rank: int) -> None:
        overdue_s = COLLECT_S + self._config.hang_timeout_s + _MARGIN_S
        self._call(rank, "collect", COLLECT_S, overdue_s=overdue_s)

    def _started(self, rank: int, version: int) -> None:
        logger.info("rollout[%d]%s stands", rank, self._group.where([rank]))
        self._dispatcher.started(rank, version)
        self._collect(rank)

    def _take(self, call: PendingCall) -> list[FinishedJob]:
        """What a call's answer brings."""
        (rank,) = call.ranks
        try:
            answer = call.result(timeout_s=_MARGIN_S)
        except Exception as error:
            if _is_deliberate(error):
                raise
            self._lost(rank, str(error))
            return []
        if call.method == "ready":
            self._started(rank, answer)
            self._send_waiting()
        return self._take_report(rank, answer) if call.method == "collect" else []

    def _take_report(self, rank: int, report: RolloutReport) -> list[FinishedJob]:
        self.recorder.add(report.spans)
        finished = [job for job in report.finished if self._dispatcher.finish(rank, job.id)]
        for job in finished:
            self._jobs.pop(job.id)
        if report.stalled_s > self._config.hang_timeout_s:
            what = "its engine has not come back from a step, or its media encoder from a file,"
            stack = self._group.stacks([rank])[rank]
            self._lost(rank, f"hung: {what} for {report.stalled_s:.0f} s{stack}")
        else:
            self._collect(rank)
        return finished

    def _overdue(self, call: PendingCall, now: float) -> None:
        """A replica that can be done without is waited for: the cluster may have no room for it."""
        (rank,), num_standing = call.ranks, len(self.standing)
        last = max(overdue for each, overdue in self._calls.items() if each.method == call.method)
        if call.method != "ready" or self._fewest == self.size:
            self._lost(rank, "gave no sign of life")
        elif num_standing >= self._fewest:
            self._calls[call] = now + self._startup_timeout_s
        elif last > now:  # of one that was lost a moment ago
            self._calls[call] = last
        else:
            raise ActorError(
                f"rollout: {num_standing} replicas stand, rollout.num_replicas.min is "
                f"{self._fewest}, and no other one started within {self._startup_timeout_s:g} s "
                f"(cluster.startup_timeout_s): {self.describe()}. {describe_cluster()}"
            )

    def _lost(self, rank: int, reason: str) -> None:
        jobs = self._dispatcher.lost(rank)
        self.num_restarts += 1
        if self.num_restarts > self._config.max_restarts:
            raise ActorError(
                f"rollout[{rank}]{self._group.where([rank])}: {reason}. It is number {self.num_restarts} to "
                "be lost and rollout.max_restarts allows no more; see its log in Ray's session folder"
            )
        logger.warning("rollout[%d] is replaced, its %d prompts go to others: %s", rank, len(jobs), reason)
        self._calls = {call: overdue for call, overdue in self._calls.items() if call.ranks != [rank]}
        self._group.restart(rank)
        self._call(rank, "ready", overdue_s=self._startup_timeout_s)
        self._send_waiting()


def _is_deliberate(error: Exception) -> bool:
    """Whether a replica raised this on purpose: it is told, and anything else means that the engine is of no
    more use."""
    return isinstance(error, RLCoreError) and not isinstance(error, (ActorError, DeadlineError))
