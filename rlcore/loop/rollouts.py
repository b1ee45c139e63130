"""The way from prompts to scored groups, which goes on while the learner works.

    buffer: tickets -> pool: groups, as they finish -> score: a few at a time -> buffer -> the step's round

Everything happens in the thread that waits: for a round, or for a call of the learner's. Only the scores come
from elsewhere, as futures, so that rewards and reference work while others are generated. What is scored
together is settled when its prompts are handed out, not by what finishes when: a synchronous run is the same
run every time. The pipeline knows neither rewards nor weights: it is given functions for both.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from rlcore.config import RunConfig
from rlcore.errors import DataError, DeadlineError
from rlcore.loop.prompts import PromptStream
from rlcore.loop.rounds import Changes, GroupBuffer, Round, Ticket
from rlcore.loop.scored import ScoredGroup
from rlcore.loop.scoring import groups_per_score
from rlcore.records.timeline import Clock
from rlcore.types import FinishedJob, Group, Prompt, RolloutJob

logger = logging.getLogger(__name__)

T_co = TypeVar("T_co", covariant=True)

_POLL_S = 0.2
"""Longest wait for the pool, which ends as well when scores or the learner's answer come: between two looks
whether to stop."""
_AWAY_S = 5.0
"""Longest wait that a poll counts for: in one that takes longer this process was stopped (SIGSTOP)."""


class GenerationPool(Protocol):
    """A pool takes prompts and gives groups: `rlcore.actors.rollout_pool.RolloutPool`, or what behaves like
    one."""

    @property
    def stale(self) -> Sequence[int]:
        """Replicas that wait for the current weights."""
        ...

    def submit(self, jobs: Sequence[RolloutJob]) -> None:
        """Hands jobs to the replicas."""
        ...

    def poll(self, timeout_s: float) -> Sequence[FinishedJob]:
        """Returns finished jobs, as soon as there are some; none after `timeout_s`, or on `wake`."""
        ...

    def wake(self) -> None:
        """Ends a poll, the present or else the next one. From any thread."""
        ...

    def cancel(self, job_ids: Iterable[int]) -> None:
        """Ends jobs, which `poll` will not return."""
        ...

    def describe(self) -> str:
        """Says, for errors, which replica is doing what."""
        ...


class Pending(Protocol[T_co]):
    """Work that goes on elsewhere, as `rlcore.actors.group.PendingCall` documents."""

    def done(self) -> bool: ...

    def when_done(self, callback: Callable[[], None]) -> None: ...

    def result(self, *, timeout_s: float) -> T_co: ...


T = TypeVar("T")


@dataclass(slots=True)
class _Chunk:
    """Tickets that are scored together."""

    step: int
    tickets: list[Ticket]
    groups: dict[Ticket, Group] = field(default_factory=dict)
    scores: Future[list[ScoredGroup]] | None = None


class RolloutPipeline:
    """Rounds of scored groups, `train.staleness` of them ahead.

    Args:
        pool: generates the groups.
        score: starts to score some groups of a step (from 0).
        counts: whether a scored group counts towards the round of a step.
        restore: brings the current weights to the pool's stale replicas, at a step; called only while the
            learner is idle.
    """

    def __init__(
        self,
        config: RunConfig,
        prompts: Sequence[Prompt],
        pool: GenerationPool,
        *,
        score: Callable[[list[Group], int], Future[list[ScoredGroup]]],
        counts: Callable[[ScoredGroup, int], bool],
        restore: Callable[[int], None],
    ):
        train = config.train
        self._config, self._prompts, self._pool = config, prompts, pool
        self._score, self._counts, self._restore = score, counts, restore
        self._stream = PromptStream(len(prompts), train.prompts_per_step, config.seed)
        self.buffer = self._new_buffer()
        self._first_id = 0
        """Id of the job at position 0 of the stream. After a step back, ids are higher than all before: an
        answer to a job that was given up is never taken for one to the same prompt later."""
        self._jobs: dict[int, _Chunk] = {}
        """Training jobs under way, by id, and what they belong to."""
        self._chunks: dict[int, list[_Chunk]] = {}
        """Of each step those that the buffer does not have yet, in the order of their prompts."""
        self._extra: dict[int, FinishedJob] = {}
        """Finished jobs of `generate`, whose ids are negative."""
        self._next_extra = -1
        self._due: int | None = None
        """The step whose round is waited for."""
        self._step = 0
        """The step that is worked for, which a restored engine's push is recorded under."""
        self.num_encoded = 0
        """Audios that went through the tower for training prompts, over the run."""

    def _new_buffer(self) -> GroupBuffer[ScoredGroup]:
        train = self._config.train
        return GroupBuffer(
            train.prompts_per_step,
            staleness=train.staleness,
            oversample=train.oversample,
            max_replaced=train.max_replaced,
        )

    def load_state_dict(self, state: Mapping[str, Any], *, step: int) -> None:
        """Goes on before `step` from what `buffer.state_dict` returned. What is under way is given up."""
        self.stop()
        self._due = None
        self._first_id += self.buffer.num_issued
        self.buffer = self._new_buffer()
        self.buffer.load_state_dict(state, step=step)

    def open(self, step: int) -> None:
        """Hands out the prompts of every round that may be generated while `step` (from 0) comes next."""
        self._step = step
        self._begin(self.buffer.open(step, self._config.train.num_steps))

    def take(self, step: int, clock: Clock) -> Round[ScoredGroup]:
        """Waits for the round of `step`; the waits are the clock's phases `rollout` and `score`.

        Raises:
            DataError: no prompt of the step can be generated.
            DeadlineError: no group was finished within `rollout.timeout_s`.
        """
        self._due = step
        while not self.buffer.is_ready(step):
            if self._is_generating(step):
                with clock.phase("rollout"):
                    self._advance_while(lambda: self._is_generating(step), f"step {step + 1}")
            else:
                with clock.phase("score"):
                    self._advance()
                    while not (self.buffer.is_ready(step) or self._is_generating(step)):
                        self._advance()
        self._due = None
        round_ = self.buffer.take(step)
        if not round_.groups:
            raise DataError(
                f"step {step + 1}: all {round_.num_dropped} prompts are over the engine's context; raise "
                "rollout.engine.max_model_len"
                if not round_.num_failed
                else f"step {step + 1}: no prompt was answered: the engine gave up {round_.num_failed}, "
                f"{round_.num_dropped} are over its context; its log says why"
            )
        return round_

    def wait(self, call: Pending[T], *, timeout_s: float) -> T:
        """Returns the result of a call of the learner's; rollouts and scores go on meanwhile."""
        deadline = time.monotonic() + timeout_s
        call.when_done(self._pool.wake)
        while self.is_busy and not call.done() and time.monotonic() < deadline:
            self._advance(is_learner_idle=False)
        return call.result(timeout_s=max(0.0, deadline - time.monotonic()))

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        step: int,
        greedy: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Group] | None:
        """Generates groups of some prompts beside the training's, in order; greedy gives one completion each.
        A prompt is left out, and named in a warning, whose generation failed, or which is over the context
        where `rollout.over_context` is `drop`. Returns None where `should_stop` said so before all were
        there: what was left is cancelled.

        Raises as `take`.
        """
        self._step = step
        ids = range(self._next_extra, self._next_extra - len(prompts), -1)
        self._next_extra -= len(prompts)
        self._pool.submit(
            [RolloutJob(id=i, prompt=p, draw=step, greedy=greedy) for i, p in zip(ids, prompts, strict=True)]
        )
        try:
            self._advance_while(
                lambda: len(self._extra) < len(prompts) and not should_stop(), "an evaluation"
            )
        finally:
            extra, self._extra = self._extra, {}
            self._pool.cancel([i for i in ids if i not in extra])
        if len(extra) < len(prompts):
            return None
        finished = [extra[i] for i in ids]
        for job, prompt in zip(finished, prompts, strict=True):
            if job.group is None:
                logger.warning("evaluation: prompt %s %s", prompt.id, _left_out(job))
        groups = [job.group for job in finished if job.group is not None]
        if prompts and not groups:
            raise DataError(f"an evaluation: none of {len(prompts)} prompts was answered; the log says why")
        return groups

    @property
    def is_busy(self) -> bool:
        """Says whether anything is being generated or scored."""
        return bool(self._jobs or self._chunks)

    def stop(self) -> None:
        """Ends what is being generated for steps that will not come. The buffer keeps what it would take to
        generate it again."""
        self._pool.cancel(list(self._jobs))
        self._jobs.clear()
        self._chunks.clear()

    def _begin(self, tickets: Sequence[Ticket]) -> None:
        """Generates tickets; those of one step are scored together in chunks of their order."""
        size = groups_per_score(self._config)
        for step in sorted({ticket.step for ticket in tickets}):
            of_step = [ticket for ticket in tickets if ticket.step == step]
            for start in range(0, len(of_step), size):
                chunk = _Chunk(step, of_step[start : start + size])
                self._chunks.setdefault(step, []).append(chunk)
                self._jobs |= {self._id(ticket): chunk for ticket in chunk.tickets}
        self._pool.submit(
            [
                RolloutJob(
                    id=self._id(ticket),
                    prompt=self._prompts[self._stream.index(ticket.position)],
                    # Not the step: where an epoch ends in it, a prompt may be in it twice.
                    draw=ticket.position,
                )
                for ticket in tickets
            ]
        )

    def _id(self, ticket: Ticket) -> int:
        return self._first_id + ticket.position

    def _advance(self, *, is_learner_idle: bool = True) -> bool:
        """Takes in what there is, waiting shortly for something; whether there was anything."""
        if self._pool.stale and is_learner_idle:
            self._restore(self._step)
        finished = self._pool.poll(_POLL_S)
        for job in finished:
            if job.id < 0:
                self._extra[job.id] = job
            else:
                self._arrived(job)
                self.num_encoded += job.num_encoded
        return self._take_scores() or bool(finished)

    def _arrived(self, job: FinishedJob) -> None:
        chunk = self._jobs.pop(job.id)
        ticket = Ticket(chunk.step, job.id - self._first_id)
        if job.group is not None:
            chunk.groups[ticket] = job.group
            self._score_if_whole(chunk)
            return
        prompt = self._prompts[self._stream.index(ticket.position)]
        logger.warning("step %d: prompt %s %s", ticket.step + 1, prompt.id, _left_out(job))
        self.buffer.drop(ticket, has_failed=job.failure is not None)
        self._leave_out([ticket])

    def _score_if_whole(self, chunk: _Chunk) -> None:
        if chunk.scores is None and len(chunk.groups) == len(chunk.tickets):
            groups = [chunk.groups[ticket] for ticket in chunk.tickets]
            chunk.scores = self._score(groups, chunk.step)
            chunk.scores.add_done_callback(lambda _: self._pool.wake())

    def _take_scores(self) -> bool:
        """Gives scored chunks to the buffer. Those of a step in order of their prompts, so that what replaces
        a group without signal does not depend on which reward was faster; but not where prompts compete.

        Raises what scoring raised, where the round that is waited for needs it. A later round's failure waits
        for its turn, so that an update that is under way is finished and pushed."""
        taken = False
        while chunk := next(filter(None, map(self._scored, self._chunks)), None):
            self._keep(chunk.step, [other for other in self._chunks[chunk.step] if other is not chunk])
            assert chunk.scores is not None
            if self._is_needed(chunk):
                self._add(chunk, chunk.scores.result())
            taken = True
        return taken

    def _scored(self, step: int) -> _Chunk | None:
        """The step's chunk whose turn it is, if it has its scores."""
        chunks = self._chunks[step]
        turns = chunks if self._config.train.oversample else chunks[:1]
        done = [chunk for chunk in turns if chunk.scores is not None and chunk.scores.done()]
        return next((c for c in done if step == self._due or not (self._is_needed(c) and _failed(c))), None)

    def _is_needed(self, chunk: _Chunk) -> bool:
        return any(map(self.buffer.is_pending, chunk.tickets))

    def _add(self, chunk: _Chunk, scored: Sequence[ScoredGroup]) -> None:
        new: list[Ticket] = []
        for ticket, group in zip(chunk.tickets, scored, strict=True):
            changes: Changes = self.buffer.add(ticket, group, counts=self._counts(group, chunk.step))
            new += changes.new
            if changes.cancelled:
                cancelled = [job for job in map(self._id, changes.cancelled) if job in self._jobs]
                self._pool.cancel(cancelled)
                for job in cancelled:
                    del self._jobs[job]
                self._leave_out(changes.cancelled)
        if new:
            self._begin(new)

    def _leave_out(self, tickets: Sequence[Ticket]) -> None:
        """No chunk waits for these any longer, unless it is being scored already."""
        left_out = set(tickets)
        for step in {ticket.step for ticket in tickets} & self._chunks.keys():
            chunks = self._chunks[step]
            for chunk in chunks:
                if chunk.scores is None:
                    chunk.tickets = [ticket for ticket in chunk.tickets if ticket not in left_out]
            chunks = [chunk for chunk in chunks if chunk.tickets]
            self._keep(step, chunks)
            for chunk in chunks:
                self._score_if_whole(chunk)

    def _keep(self, step: int, chunks: list[_Chunk]) -> None:
        """A step has only these chunks left; without any it is forgotten."""
        if chunks:
            self._chunks[step] = chunks
        else:
            del self._chunks[step]

    def _is_generating(self, step: int) -> bool:
        return any(chunk.step == step for chunk in self._jobs.values())

    def _advance_while(self, is_needed: Callable[[], bool], what: str) -> None:
        """Waits for what is being generated; ends where nothing comes for `rollout.timeout_s`."""
        timeout_s, waited_s = self._config.rollout.timeout_s, 0.0
        while is_needed():
            began = time.monotonic()
            if self._advance():
                waited_s = 0.0
                continue
            waited_s += min(time.monotonic() - began, _AWAY_S)
            if waited_s > timeout_s:
                raise DeadlineError(
                    f"rollout of {what}: no prompt was finished within {timeout_s:g} s (rollout.timeout_s): "
                    f"{self._pool.describe()}"
                )


def _failed(chunk: _Chunk) -> bool:
    return chunk.scores is not None and chunk.scores.exception() is not None


def _left_out(job: FinishedJob) -> str:
    """Says why a job has no group."""
    if job.failure is None:
        return "is over the context and left out"
    return f"is left out: the engine ended its generation by {job.failure!r}, twice"
