"""Continuous batching: an engine that steps on a thread of its own, for as long as there is work.

Whoever calls is on another thread and never waits for a token: requests are queued, finished ones collected,
weights replaced between two steps. The thread makes every call to the engine, building it included. This
module knows neither prompts nor Ray: an engine is whatever has `step` and `num_unfinished`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from rlcore.types import Completion

Completions = tuple[Completion, ...]


class StepEngine(Protocol):
    """An engine, as far as the loop needs one; `VLLMEngine` is one."""

    @property
    def num_unfinished(self) -> int:
        """Requests that are neither finished nor cancelled."""
        ...

    def step(self) -> Mapping[str, Completions]:
        """Computes the next token of all requests, and returns what has finished with it, by key."""
        ...


E = TypeVar("E", bound=StepEngine)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """The state of an engine's loop."""

    num_unfinished: int
    """Requests in the engine, those not yet looked at included."""
    stalled_s: float
    """Seconds since the engine last came back from a call; 0 where it has nothing to do."""


class EngineLoop(Generic[E]):
    """Owns an engine and its thread.

    Args:
        build: makes the engine, on the loop's thread. An error of `build` is raised by the constructor.
        on_busy: told (start, end) in epoch seconds of every stretch in which the engine stepped; calls are
            between stretches.
        on_finished: given the engine and what a step has finished, on the loop's thread; returns what is to
            be collected of it.
    """

    def __init__(
        self,
        build: Callable[[], E],
        *,
        on_busy: Callable[[float, float], None] | None = None,
        on_finished: Callable[[E, Mapping[str, Completions]], Mapping[str, Completions]] | None = None,
    ):
        self._on_busy, self._on_finished = on_busy, on_finished
        self._condition = threading.Condition()
        self._inbox: deque[tuple[Callable[[E], None], Callable[[BaseException], None]]] = deque()
        """Calls to come, and who is told where the loop ends before."""
        self._finished: dict[str, Completions | None] = {}
        self._error: BaseException | None = None
        self._num_unfinished = 0
        self._busy_since: float | None = None
        self._is_closed = False
        built: Future[E] = Future()
        self._thread = threading.Thread(target=self._run, args=(build, built), name="engine", daemon=True)
        self._thread.start()
        self.engine = built.result()
        """The engine, for what may be read from any thread (`policy_version`, `stats`); calls go through
        `call`."""

    def call(self, function: Callable[[E], T]) -> Future[T]:
        """Runs `function(engine)` between two steps, after all earlier calls."""
        future: Future[T] = Future()

        def answer(engine: E) -> None:
            try:
                future.set_result(function(engine))
            except BaseException as error:
                future.set_exception(error)

        with self._condition:
            if self._error is not None or self._is_closed:
                future.set_exception(self._error or RuntimeError("the engine's loop is closed"))
                return future
            self._inbox.append((answer, future.set_exception))
            self._condition.notify_all()
        return future

    def post(self, key: str, result: Completions | None) -> None:
        """Lets a request that the engine never saw be collected among the finished ones."""
        with self._condition:
            self._finished[key] = result
            self._condition.notify_all()

    def collect(self, timeout_s: float) -> dict[str, Completions | None]:
        """Returns what has finished since the last call, by key; waits for something up to `timeout_s`.

        Raises what a step of the engine raised: the engine is then of no more use.
        """
        with self._condition:
            self._condition.wait_for(
                lambda: self._finished or self._error is not None or self._is_closed, timeout_s
            )
            if self._error is not None:
                raise self._error
            finished, self._finished = self._finished, {}
            return finished

    def state(self) -> LoopState:
        """Returns what the loop is doing, at any time, also while the engine is stuck in a step."""
        with self._condition:
            since = self._busy_since
            return LoopState(
                num_unfinished=self._num_unfinished + len(self._inbox),
                stalled_s=0.0 if since is None else time.monotonic() - since,
            )

    def close(self) -> None:
        """Ends the thread after the step at hand. Idempotent."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        self._thread.join()

    def _run(self, build: Callable[[], E], built: Future[E]) -> None:
        try:
            engine = build()
        except BaseException as error:
            built.set_exception(error)
            return
        built.set_result(engine)
        stretch: float | None = None
        while True:
            with self._condition:
                is_idle = engine.num_unfinished == 0 and not self._inbox
                if is_idle or self._inbox:
                    if stretch is not None and self._on_busy is not None:
                        self._on_busy(stretch, time.time())
                    stretch = None
                if is_idle:
                    self._busy_since = None
                    while not self._inbox and not self._is_closed:
                        self._condition.wait()
                if self._is_closed:
                    return
                calls = list(self._inbox)
                self._inbox.clear()
                self._busy_since = time.monotonic()
            for answer, _ in calls:
                answer(engine)
            if engine.num_unfinished:
                stretch = stretch or time.time()
                if not self._step(engine):
                    return
            with self._condition:
                self._num_unfinished = engine.num_unfinished

    def _step(self, engine: E) -> bool:
        """Makes one step; returns False where the step failed, and the loop ends."""
        try:
            finished = engine.step()
            if self._on_finished is not None:
                finished = self._on_finished(engine, finished)
        except BaseException as error:  # whatever it is, the requests inside cannot be trusted any more
            with self._condition:
                self._error = error
                for _, fail in self._inbox:
                    fail(error)
                self._condition.notify_all()
            return False
        if finished:
            with self._condition:
                self._finished.update(finished)
                self._condition.notify_all()
        return True
