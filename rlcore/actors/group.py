"""The one way from the controller to its actors: equal actors of one role, called together, with a deadline.

A role's class is a plain class that knows no Ray; it becomes an actor here, where it is spawned. Every wait
ends: by the answers, by the first failure, or at the deadline, and the error names role, rank and method.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, NodeDiedError, OutOfMemoryError, RayActorError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rlcore.actors.heartbeat import beating
from rlcore.actors.placement import Reservation
from rlcore.actors.processes import process_of, stacks
from rlcore.errors import ActorError, ConfigError, DeadlineError, RLCoreError

# The first failure of a call is raised; Ray would print those of the other ranks over it.
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")


DEATHS = (RayActorError, OutOfMemoryError, NodeDiedError, ActorUnschedulableError)
"""Ray's errors of a call whose actor is gone: killed, also by Ray's own memory monitor, or with its node."""

_CLOSE_S = 5.0
"""Longest that a shutdown waits for actors that may be busy, or dead."""
_CAUSE_S = 5.0
"""Longest wait for the death of a rank that would explain what another raised."""
HEAR_S = 0.1
"""Last wait for an answer past its deadline: where this process was stopped (SIGSTOP), what was answered
meanwhile is heard a moment later."""

_REFUSED = f"{ConfigError.__module__}.{ConfigError.__qualname__}: "


@dataclass(frozen=True, slots=True, eq=False)
class PendingCall:
    """A pending call is one that some ranks are busy with."""

    group: str
    method: str
    answers: list[Future[Any]]
    """One a rank."""
    ranks: list[int]
    merge: Callable[[list[Any]], Any]
    where: Callable[[Iterable[int]], str] = lambda ranks: ""
    """` on NODE, ...` of some ranks, for errors."""
    why: Callable[[int], str] = lambda rank: ""
    """Why a rank was killed, for errors."""

    def done(self) -> bool:
        """Says whether every rank has answered, or one has failed: the others may be waiting for it."""
        return all(answer.done() for answer in self.answers) or any(map(_failure, self.answers))

    def when_done(self, callback: Callable[[], None]) -> None:
        """Calls `callback`, in any thread, as each rank answers; the last call comes when all have."""
        for answer in self.answers:
            answer.add_done_callback(lambda _: callback())

    def result(self, *, timeout_s: float) -> Any:
        """Waits for every rank.

        Raises DeadlineError after `timeout_s`, ActorError where an actor died, and whatever the method
        raised, as soon as the first rank fails: the others may be waiting for it and never answer. A death is
        told before what it made the others raise.
        """
        for seconds in (timeout_s, HEAR_S):
            wait(self.answers, seconds, return_when=FIRST_EXCEPTION)
        self._wait_for_cause()
        of_rank = [pair for pair in zip(self.ranks, self.answers, strict=True) if pair[1].done()]
        results = {rank: self._get(answer, rank) for rank, answer in sorted(of_rank, key=_deaths_first)}
        if late := [rank for rank in self.ranks if rank not in results]:
            error = DeadlineError(
                f"{self.group}[{_join(late)}].{self.method} gave no answer within {timeout_s:g} s"
                f"{self.where(late)}; raise its timeout_s if the work is that long, else see its log"
            )
            error.role = self.group
            raise error
        return self.merge([results[rank] for rank in self.ranks])

    def _wait_for_cause(self) -> None:
        """A rank that lost its partner raises that a connection broke, and may do so before Ray knows of the
        partner's death."""
        deadline = time.monotonic() + _CAUSE_S
        while waiting := [answer for answer in self.answers if not answer.done()]:
            failures = list(filter(None, map(_failure, self.answers)))
            left_s = deadline - time.monotonic()
            if not failures or left_s <= 0 or any(isinstance(f, (*DEATHS, RLCoreError)) for f in failures):
                return
            wait(waiting, left_s, return_when=FIRST_COMPLETED)

    def _get(self, answer: Future[Any], rank: int) -> Any:
        try:
            return answer.result()
        except DEATHS as error:
            reason = last_line(error)
            if _REFUSED in reason:  # by the actor's constructor: a mistake in the configuration
                raise ConfigError(reason.partition(_REFUSED)[2]) from error
            death = ActorError(
                f"{self.group}[{rank}] died in {self.method}{self.where([rank])} (its log in Ray's "
                f"session folder says more): {self.why(rank) or reason}"
            )
            death.role = self.group
            raise death from error


class Inbox:
    """Calls come into an inbox as they are answered. To wait for one of a thousand costs no more than for
    one."""

    def __init__(self) -> None:
        self._expected: dict[Future[Any], PendingCall] = {}
        self._answered: SimpleQueue[Future[Any] | None] = SimpleQueue()

    def expect(self, call: PendingCall) -> None:
        """Has `take` give this call, once for each rank that answers. To expect a call twice changes
        nothing."""
        for answer in call.answers:
            if answer not in self._expected:
                self._expected[answer] = call
                answer.add_done_callback(self._answered.put)

    def wake(self) -> None:
        """Ends a `take`, the present or else the next one, with what there is. Any thread may call this."""
        self._answered.put(None)

    def take(self, timeout_s: float) -> Iterator[PendingCall]:
        """Yields the calls that were answered since, as soon as there is one; none after `timeout_s`.
        Calls that are not iterated over stay."""
        with suppress(Empty):
            if first := self._answered.get(timeout=max(0.0, timeout_s)):
                yield self._expected.pop(first)
        for _ in range(self._answered.qsize()):
            if answer := self._answered.get():
                yield self._expected.pop(answer)


class ActorGroup:
    """A group holds the actors of one class, ranks 0 to size - 1.

    `arguments` holds one rank's constructor keywords each. With a reservation, rank i runs in the i-th bundle
    of the role `name`; the last `num_unreserved` start whenever the cluster has room. `env_vars` are set
    before the actor's Python starts. `options` are further options of a Ray actor. Its actors give signs of
    life while they work (`rlcore.actors.heartbeat`).
    """

    def __init__(
        self,
        name: str,
        cls: type,
        arguments: Sequence[Mapping[str, Any]],
        *,
        num_cpus: float,
        num_gpus: float = 0.0,
        reservation: Reservation | None = None,
        env_vars: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        num_unreserved: int = 0,
    ):
        self.name, self.size = name, len(arguments)
        # So that calls of several threads come to all ranks in one order, as collective ones must.
        self._one_at_a_time = threading.Lock()
        places = reservation.places(name) if reservation else []
        if reservation and len(places) < self.size - num_unreserved:
            raise ValueError(
                f"{name}: {self.size - num_unreserved} actors but only {len(places)} bundles reserved for "
                "the role"
            )
        self._class = ray.remote(beating(cls))
        self._arguments = list(arguments)
        self._can_close = hasattr(cls, "close")
        own: dict[str, Any] = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_restarts": 0}
        # Ray's record of each call costs a sixth of the controller's time; `records.timeline` has ours.
        own |= {"enable_task_events": False, **(options or {})}
        if env_vars:
            runtime_env = own.get("runtime_env", {})
            both = {**env_vars, **runtime_env.get("env_vars", {})}
            own["runtime_env"] = {**runtime_env, "env_vars": both}
        self._options: list[dict[str, Any]] = [dict(own) for _ in arguments]
        for each, (group, bundle) in zip(self._options, places, strict=False):
            each["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=bundle
            )
        self._killed: dict[Any, str] = {}
        """Actors that gave reason to be killed."""
        self._actors = [self._spawn(rank) for rank in range(self.size)]

    def _spawn(self, rank: int) -> Any:
        return self._class.options(**self._options[rank]).remote(**self._arguments[rank])

    def restart(self, rank: int) -> None:
        """Kills one actor, whatever it does, and starts a new one in its place, without its state."""
        ray.kill(self._actors[rank], no_restart=True)
        self._actors[rank] = self._spawn(rank)

    def restart_all(self) -> None:
        """Kills all actors and starts new ones in their places. A call of another thread comes to the old
        ones or to the new ones."""
        with self._one_at_a_time:
            for actor in self._actors:
                ray.kill(actor, no_restart=True)
            self._actors = [self._spawn(rank) for rank in range(self.size)]

    @property
    def actors(self) -> tuple[Any, ...]:
        """Returns Ray's handles of the present actors, by rank."""
        return tuple(self._actors)

    def kill(self, actor: Any, reason: str) -> None:
        """Kills an actor; whoever waits for its answer hears of its death and of the reason."""
        self._killed[actor] = reason
        ray.kill(actor, no_restart=True)

    def where(self, ranks: Iterable[int]) -> str:
        """Returns ` on NODE, ...`: the addresses of the nodes that some ranks run on, as far as Ray knows
        them."""
        known = [process_of(self._actors[rank]) for rank in ranks]
        nodes = {process.address for process in known if process is not None} - {""}
        return f" on {', '.join(sorted(nodes))}" if nodes else ""

    def stacks(self, ranks: Iterable[int]) -> dict[int, str]:
        """Returns what the threads of some ranks are doing, as `rlcore.actors.processes.stacks`. Waits."""
        ranks = list(ranks)
        return dict(zip(ranks, stacks([self._actors[rank] for rank in ranks]), strict=True))

    def _why(self, rank: int) -> str:
        return self._killed.get(self._actors[rank], "")

    def call(self, method: str, *args: Any, timeout_s: float, **kwargs: Any) -> list[Any]:
        """Makes the same call on every rank and returns one result per rank. Raises as
        `PendingCall.result`."""
        return self.call_async(method, *args, **kwargs).result(timeout_s=timeout_s)

    def call_each(
        self, method: str, arguments: Sequence[tuple[Any, ...]], *, timeout_s: float, **kwargs: Any
    ) -> list[Any]:
        """Calls rank i with `arguments[i]` and the shared keywords, and returns one result per rank."""
        return self.call_each_async(method, arguments, **kwargs).result(timeout_s=timeout_s)

    def call_one(self, rank: int, method: str, *args: Any, timeout_s: float, **kwargs: Any) -> Any:
        """Calls one rank alone and returns its result."""
        return self.call_one_async(rank, method, *args, **kwargs).result(timeout_s=timeout_s)

    def call_one_async(self, rank: int, method: str, *args: Any, **kwargs: Any) -> PendingCall:
        """Starts `call_one`."""
        answer = getattr(self._actors[rank], method).remote(*args, **kwargs).future()
        return PendingCall(
            self.name, method, [answer], [rank], lambda results: results[0], self.where, self._why
        )

    def call_async(self, method: str, *args: Any, **kwargs: Any) -> PendingCall:
        """Starts `call`. Arguments are stored once and shared by the ranks."""
        if self.size > 1:
            args = tuple(ray.put(arg) for arg in args)
        return self.call_each_async(method, [args] * self.size, **kwargs)

    def call_each_async(
        self, method: str, arguments: Sequence[tuple[Any, ...]], **kwargs: Any
    ) -> PendingCall:
        """Starts `call_each`."""
        assert len(arguments) == self.size, (self.name, method, len(arguments), self.size)
        with self._one_at_a_time:
            answers = [
                getattr(actor, method).remote(*args, **kwargs).future()
                for actor, args in zip(self._actors, arguments, strict=True)
            ]
        return PendingCall(self.name, method, answers, list(range(self.size)), list, self.where, self._why)

    def call_shards(self, method: str, items: Sequence[Any], *, timeout_s: float) -> list[Any]:
        """Deals `items` out, rank r getting the list items[r::size]. Returns one list of values in the items'
        order.

        The method must return one value per item, and may be given an empty list. Raises as
        `PendingCall.result`.
        """
        parts = [(list(items[r :: self.size]),) for r in range(self.size)]
        merged: list[Any] = [None] * len(items)
        for rank, part in enumerate(self.call_each(method, parts, timeout_s=timeout_s)):
            merged[rank :: self.size] = part
        return merged

    def shutdown(self) -> None:
        """Lets actors with a `close` free what would outlive them, then kills these actors and no others.
        Idempotent."""
        if self._can_close and self._actors:
            closing = [actor.close.remote() for actor in self._actors]
            ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)
        for actor in self._actors:
            ray.kill(actor, no_restart=True)
        self._actors = []


def was_killed(error: BaseException) -> bool:
    """Says whether an ActorError is of a process that was killed, not of a constructor that raised."""
    cause = error.__cause__
    return isinstance(cause, DEATHS) and not getattr(cause, "actor_init_failed", False)


def _failure(answer: Future[Any]) -> BaseException | None:
    return answer.exception() if answer.done() else None


def _deaths_first(of_rank: tuple[int, Future[Any]]) -> bool:
    return not isinstance(of_rank[1].exception(), DEATHS)


def _join(ranks: Any) -> str:
    return ",".join(str(rank) for rank in sorted(ranks))


def last_line(error: BaseException) -> str:
    """Returns the last line with content of an error: Ray's messages are pages long, and that line says
    why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
