"""Simulates the training loop as discrete events: how long a step is where lengths have a long tail and
rollouts run ahead.

    rounds open -> prompts to the engine with the least to do -> groups finish -> chunks are scored in order
      -> the round is ready -> update -> weights to all engines (they pause) -> ...

The rules are those of `rlcore.loop.rollouts` and `rlcore.loop.rounds`: at most `staleness` rounds are open
beyond the one that is trained next; a group's samples stay on one engine; with `oversample` the first groups
make the round and the others are cancelled; after a push an engine computes the cached keys and values of all
that it is writing anew. Engines decode as `rlcore.plan.phases` says. Built on SimPy.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np
import simpy


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A loop is one run to simulate. All seconds are those of the machine that is simulated."""

    num_engines: int
    prompts_per_step: int
    samples_per_prompt: int
    prompt_length: int
    max_num_seqs: int
    lengths: Callable[[np.random.Generator, int], np.ndarray]
    """Draws this many completion lengths, int64 [count]."""
    step_seconds: Callable[[float, float], float]
    """Seconds of one decoding step, by sequences being written and tokens in the cache."""
    prefill_seconds: Callable[[float], float]
    """Seconds to read this many prompt tokens."""
    score_seconds: float
    """Seconds in which rewards and reference score a whole round, one chunk after the other."""
    update_seconds: float
    sync_seconds: float
    staleness: int = 0
    oversample: float = 0.0
    groups_per_score: int = 4
    controller_seconds: float = 0.0
    """Seconds that the controller takes for one group; groups come one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result holds means over the steps that are counted."""

    step_seconds: float
    engine_utilization: float
    """Share of the engines' time in which they work."""
    learner_utilization: float
    """Share of the learner's time in which it updates."""
    max_staleness: int
    """The most pushes between a group's first token and its update."""
    mean_staleness: float
    cancelled: float
    """Share of prompts that were begun in vain, and cancelled."""


@dataclass(slots=True)
class _Group:
    step: int
    num_left: int
    """Samples that are not finished."""
    engine: _Engine
    version: int | None = None
    """Of the policy that wrote its first token."""
    is_cancelled: bool = False


@dataclass(order=True, slots=True)
class _Sequence:
    last_step: int
    """The engine's step that writes its last token."""
    tie: int
    length: int = field(compare=False)
    group: _Group = field(compare=False)


class _Engine:
    """Continuous batching: sequences are written together, one token each a step; a place that becomes free
    is taken by the next. Time passes in stretches in which the set of sequences stays the same."""

    def __init__(self, run: _Run):
        self._run, self._env, self._loop = run, run.env, run.loop
        self.num_groups = 0
        self._idle_seconds = 0.0
        self._idle_since: float | None = None
        self._waiting: deque[tuple[_Group, int]] = deque()
        self._active: list[_Sequence] = []
        self._steps = self._ties = 0
        self._cached = self._pause_seconds = 0.0
        self._prompt_share = run.loop.prompt_length / run.loop.samples_per_prompt
        self._wake = self._env.event()
        self._env.process(self._work())

    def add(self, group: _Group, lengths: np.ndarray) -> None:
        self.num_groups += 1
        self._waiting += [(group, int(length)) for length in lengths]
        self._notify()

    def take_weights(self) -> None:
        """The engine pauses for a push, and computes the cache of what it is writing again."""
        self._pause_seconds += self._loop.sync_seconds
        if self._active:
            self._pause_seconds += self._loop.prefill_seconds(self._cached)
        self._notify()

    def cancel(self) -> None:
        """Drops what belongs to cancelled groups."""
        kept = [sequence for sequence in self._active if not sequence.group.is_cancelled]
        if len(kept) < len(self._active):
            self._active = kept
            heapq.heapify(self._active)
            self._cached = sum(self._in_cache(sequence) for sequence in kept)
            self._notify()

    @property
    def busy_seconds(self) -> float:
        """Up to now."""
        waiting = 0.0 if self._idle_since is None else self._env.now - self._idle_since
        return self._env.now - self._idle_seconds - waiting

    def _notify(self) -> None:
        if not self._wake.triggered:
            self._wake.succeed()

    def _in_cache(self, sequence: _Sequence) -> float:
        return self._prompt_share + self._steps - (sequence.last_step - sequence.length)

    def _work(self) -> Generator[simpy.Event, object, None]:
        while True:
            seconds = self._pause_seconds + self._admit()
            self._pause_seconds = 0.0
            if seconds:
                yield self._env.timeout(seconds)
            elif self._active:
                yield from self._decode()
            else:
                self._wake, self._idle_since = self._env.event(), self._env.now
                yield self._wake
                self._idle_seconds += self._env.now - self._idle_since
                self._idle_since = None

    def _admit(self) -> float:
        """Fills free places; seconds to read the prompts that come with them, each once for its samples."""
        num_prompts = 0
        while self._waiting and len(self._active) < self._loop.max_num_seqs:
            group, length = self._waiting.popleft()
            if group.is_cancelled:
                continue
            if group.version is None:
                group.version, num_prompts = self._run.version, num_prompts + 1
            self._ties += 1
            heapq.heappush(self._active, _Sequence(self._steps + length, self._ties, length, group))
            self._cached += self._prompt_share
        return self._loop.prefill_seconds(num_prompts * self._loop.prompt_length) if num_prompts else 0.0

    def _decode(self) -> Generator[simpy.Event, object, None]:
        """Steps until a sequence ends, or something else is to be done."""
        num_active, num_steps = len(self._active), self._active[0].last_step - self._steps
        each = self._loop.step_seconds(num_active, self._cached + num_active * num_steps / 2)
        began, self._wake = self._env.now, self._env.event()
        yield self._env.timeout(num_steps * each) | self._wake
        # A step that has begun is not broken off.
        num_steps = min(num_steps, math.ceil((self._env.now - began) / each - 1e-9))
        rest = began + num_steps * each - self._env.now
        if rest > 0:
            yield self._env.timeout(rest)
        self._steps += num_steps
        self._cached += num_steps * len(self._active)
        while self._active and self._active[0].last_step <= self._steps:
            sequence = heapq.heappop(self._active)
            self._cached -= self._in_cache(sequence)
            sequence.group.num_left -= 1
            if sequence.group.num_left == 0:
                self.num_groups -= 1
                self._run.group_finished(sequence.group)


@dataclass(slots=True)
class _Round:
    groups: list[_Group]
    chunks: dict[int, list[_Group]]
    """By a group's id: those that are scored with it."""
    ready: simpy.Event
    scored: list[_Group] = field(default_factory=list)


class _Run:
    """Rounds, scoring and learner."""

    def __init__(self, loop: Loop, num_steps: int, seed: int):
        self.loop, self.env, self.version = loop, simpy.Environment(), 0
        self._rng = np.random.default_rng(seed)
        self._engines = [_Engine(self) for _ in range(loop.num_engines)]
        self._rounds: dict[int, _Round] = {}
        self._next_round = 0
        self._scorer, self._controller = simpy.Resource(self.env), simpy.Resource(self.env)
        self._ages: list[int] = []
        self._num_cancelled = 0
        self._marks: list[tuple[float, float]] = []
        self._num_counted = num_steps
        # Until the rounds that were opened together at the start are trained.
        self._warm_up = 2 * (1 + loop.staleness)
        self.done = self.env.process(self._train(self._warm_up + num_steps))

    def result(self) -> Result:
        (began, busy_before), (ended, busy_after) = self._marks[self._warm_up - 1], self._marks[-1]
        seconds, loop = ended - began, self.loop
        num_begun = self._next_round * math.ceil(loop.prompts_per_step * (1 + loop.oversample) - 1e-9)
        return Result(
            step_seconds=seconds / self._num_counted,
            engine_utilization=(busy_after - busy_before) / (seconds * loop.num_engines),
            learner_utilization=self._num_counted * loop.update_seconds / seconds,
            max_staleness=max(self._ages),
            mean_staleness=float(np.mean(self._ages)),
            cancelled=self._num_cancelled / num_begun,
        )

    def group_finished(self, group: _Group) -> None:
        chunk = self._rounds[group.step].chunks[id(group)]
        if all(each.num_left == 0 for each in chunk):
            self.env.process(self._score(chunk))

    def _train(self, num_steps: int) -> Generator[simpy.Event, object, None]:
        loop = self.loop
        for step in range(num_steps):
            # Rounds beyond the last step keep the engines as busy as they are in the middle of a run.
            while self._next_round <= step + loop.staleness:
                self._open(self._next_round)
            yield self._rounds[step].ready
            groups = self._rounds.pop(step).scored
            self._ages += [self.version - group.version for group in groups if group.version is not None]
            yield self.env.timeout(loop.update_seconds)
            for engine in self._engines:
                engine.take_weights()
            yield self.env.timeout(loop.sync_seconds)
            self.version += 1
            self._marks.append((self.env.now, sum(engine.busy_seconds for engine in self._engines)))

    def _open(self, step: int) -> None:
        """Prompts to the engines, each to the one with the fewest (`rlcore.actors.dispatch`)."""
        loop = self.loop
        count = math.ceil(loop.prompts_per_step * (1 + loop.oversample) - 1e-9)
        least = [(engine.num_groups, rank) for rank, engine in enumerate(self._engines)]
        heapq.heapify(least)
        groups = []
        for _ in range(count):
            num_groups, rank = least[0]
            groups.append(_Group(step, loop.samples_per_prompt, self._engines[rank]))
            heapq.heapreplace(least, (num_groups + 1, rank))
        # Of prompts that compete to be first, none may wait for another.
        size = 1 if loop.oversample else loop.groups_per_score
        chunks = {id(g): groups[i - i % size : i - i % size + size] for i, g in enumerate(groups)}
        self._rounds[step] = _Round(groups, chunks, self.env.event())
        self._next_round = step + 1
        lengths = loop.lengths(self._rng, count * loop.samples_per_prompt).reshape(count, -1)
        for group, row in zip(groups, lengths, strict=True):
            group.engine.add(group, row)

    def _score(self, chunk: list[_Group]) -> Generator[simpy.Event, object, None]:
        loop = self.loop
        parts = (
            (self._controller, loop.controller_seconds * len(chunk)),
            (self._scorer, loop.score_seconds * len(chunk) / loop.prompts_per_step),
        )
        for resource, seconds in parts:
            if seconds:
                with resource.request() as turn:
                    yield turn
                    yield self.env.timeout(seconds)
        round_ = self._rounds.get(chunk[0].step)
        if round_ is None or round_.ready.triggered:
            return
        round_.scored += chunk[: loop.prompts_per_step - len(round_.scored)]
        if len(round_.scored) == loop.prompts_per_step:
            round_.ready.succeed()
            self._cancel_rest(round_)

    def _cancel_rest(self, round_: _Round) -> None:
        taken = {id(group) for group in round_.scored}
        rest = [group for group in round_.groups if id(group) not in taken]
        for group in rest:
            group.is_cancelled = True
            group.engine.num_groups -= group.num_left > 0
        self._num_cancelled += len(rest)
        for engine in {id(group.engine): group.engine for group in rest}.values():
            engine.cancel()


def simulate(loop: Loop, *, num_steps: int = 6, seed: int = 0) -> Result:
    """Simulates and returns means over `num_steps` steps, after some that are not counted.

    The result depends on the arguments alone.
    """
    run = _Run(loop, num_steps, seed)
    run.env.run(until=run.done)
    return run.result()
