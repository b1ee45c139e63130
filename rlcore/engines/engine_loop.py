"""Continuous batching: an engine that steps on a thread of its own, for as long as there is work.

Whoever calls is on another thread and never waits for a token: requests are queued, finished ones collected,
weights replaced between two steps. The thread makes every call to the engine, building it included. It knows
neither prompts nor Ray: an engine is whatever has `submit`, `step`, `cancel` and `num_unfinished`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class StepEngine(Protocol):
    """What the loop needs of an engine; `VLLMEngine` is one."""

    @property
    def num_unfinished(self) -> int: ...

    def step(self) -> Mapping[str, Any]: ...

    def cancel(self, keys: Iterable[str]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """What the loop is doing."""

    num_unfinished: int
    """Requests in the engine, those not yet looked at included."""
    stalled_s: float
    """Seconds since the engine last came back from a call; 0 where it has nothing to do."""


class EngineLoop:
    """Owns an engine and its thread.

    Args:
        build: makes the engine, on the loop's thread. What it raises is raised here.
        on_busy: told (start, end) in epoch seconds of every stretch in which the engine stepped; calls are
            between stretches.
    """

    def __init__(self, build: Callable[[], Any], *, on_busy: Callable[[float, float], None] | None = None):
        self._on_busy = on_busy
        self._condition = threading.Condition()
        self._inbox: deque[tuple[Callable[[Any], Any], Future[Any]]] = deque()
        self._finished: dict[str, Any] = {}
        self._error: BaseException | None = None
        self._num_unfinished = 0
        self._busy_since: float | None = None
        self._is_closed = False
        built: Future[Any] = Future()
        self._thread = threading.Thread(target=self._run, args=(build, built), name="engine", daemon=True)
        self._thread.start()
        self.engine = built.result()
        """For what may be read from any thread (`policy_version`, `stats`); calls go through `call`."""

    def call(self, function: Callable[[Any], T]) -> Future[T]:
        """Runs `function(engine)` between two steps, after all calls before it."""
        future: Future[T] = Future()
        with self._condition:
            if self._error is not None or self._is_closed:
                future.set_exception(self._error or RuntimeError("the engine's loop is closed"))
                return future
            self._inbox.append((function, future))
            self._condition.notify_all()
        return future

    def post(self, key: str, result: Any) -> None:
        """Lets a request that the engine never saw be collected among the finished ones."""
        with self._condition:
            self._finished[key] = result
            self._condition.notify_all()

    def collect(self, timeout_s: float) -> dict[str, Any]:
        """What has finished since the last call, by key; waits for something up to `timeout_s`.

        Raises what a step raised: the engine is then of no more use.
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
        """At any time, also while the engine is stuck in a step."""
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

    def _run(self, build: Callable[[], Any], built: Future[Any]) -> None:
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
            for function, future in calls:
                _answer(future, function, engine)
            if engine.num_unfinished:
                stretch = stretch or time.time()
                if not self._step(engine):
                    return
            with self._condition:
                self._num_unfinished = engine.num_unfinished

    def _step(self, engine: Any) -> bool:
        """One step; False where it failed and the loop ends."""
        try:
            finished = engine.step()
        except BaseException as error:  # whatever it is, the requests inside cannot be trusted any more
            with self._condition:
                self._error = error
                for _, future in self._inbox:
                    future.set_exception(error)
                self._condition.notify_all()
            return False
        if finished:
            with self._condition:
                self._finished.update(finished)
                self._condition.notify_all()
        return True


def _answer(future: Future[Any], function: Callable[[Any], Any], engine: Any) -> None:
    try:
        future.set_result(function(engine))
    except BaseException as error:
        future.set_exception(error)
