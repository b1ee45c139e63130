"""The processes that run an environment, beside one rollout replica: each answers an episode at a time.

A call that passes its deadline, or whose process dies, costs its own episode alone: the reply says why, and
the process is started anew. The processes belong to the replica's and end with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from rlcore.actors.environment_worker import EnvironmentWorker
from rlcore.actors.group import DEATHS, HEAR_S, ActorGroup, Inbox, PendingCall, last_line
from rlcore.config import EnvironmentConfig
from rlcore.environments import Episode, Reply

logger = logging.getLogger(__name__)

STARTUP_S = 120.0
"""Longest start of a process. Episodes wait for it, and are given up after."""
_LOOK_S = 5.0
"""Longest wait for news: an answer, a deadline or a new episode end it before."""

_Hear = Callable[[Reply], None]


@dataclass(frozen=True, slots=True)
class _Call:
    rank: int
    hear: _Hear | None
    """None: the process is starting."""
    deadline: float


class EnvironmentPool:
    """Answers episodes from any thread, in the order in which they come.

    Args:
        name: names the processes in logs and errors.

    Raises:
        ConfigError: the environment cannot be built from `rollout.environment`.
        DeadlineError, ActorError: its processes do not start.
    """

    def __init__(self, config: EnvironmentConfig, name: str):
        self._config, self._name = config, name
        # Ray's bundles are the replica's: these share its CPUs.
        self._group = ActorGroup(
            name, EnvironmentWorker, [{"config": config}] * config.num_workers, num_cpus=0
        )
        (self._stop, *_) = self._group.call("ready", timeout_s=STARTUP_S)
        self._inbox = Inbox()
        self._arrived: deque[tuple[Episode, _Hear]] = deque()
        self._waiting: deque[tuple[Episode, _Hear]] = deque()
        self._free = list(range(config.num_workers))
        self._calls: dict[PendingCall, _Call] = {}
        threading.Thread(target=self._deal, name="environment", daemon=True).start()

    def stop(self) -> tuple[str, ...]:
        """Returns the texts that call the environment."""
        return cast(tuple[str, ...], self._stop)

    def ask(self, episode: Episode, hear: _Hear) -> None:
        """Has the environment answer an episode; `hear` is given the reply, on the pool's thread."""
        self._arrived.append((episode, hear))
        self._inbox.wake()

    def _deal(self) -> None:
        while True:
            while self._arrived:
                self._waiting.append(self._arrived.popleft())
            while self._free and self._waiting:
                rank, (episode, hear) = self._free.pop(), self._waiting.popleft()
                self._start(rank, "step", episode, hear=hear, seconds=self._config.timeout_s)
            first = min((call.deadline for call in self._calls.values()), default=float("inf"))
            for pending in self._inbox.take(min(_LOOK_S, first - time.monotonic())):
                self._receive(pending)
            self._expire()

    def _start(self, rank: int, method: str, *args: object, hear: _Hear | None, seconds: float) -> None:
        pending = self._group.call_one_async(rank, method, *args)
        self._calls[pending] = _Call(rank, hear, time.monotonic() + seconds)
        self._inbox.expect(pending)

    def _receive(self, pending: PendingCall) -> None:
        call = self._calls.pop(pending, None)
        if call is None:
            return  # it was too late
        (answer,) = pending.answers
        error = answer.exception()
        if error is None:
            self._free.append(call.rank)
            if call.hear is not None:
                call.hear(answer.result())
        elif isinstance(error, DEATHS):
            self._lost(call, f"its process died: {last_line(error)}")
        else:  # what was sent or answered could not be read on the other side
            self._free.append(call.rank)
            self._fail(call, f"the call failed: {last_line(error)}")

    def _expire(self) -> None:
        now = time.monotonic()
        if not any(call.deadline <= now for call in self._calls.values()):
            return
        for pending in self._inbox.take(HEAR_S):  # where this process was stopped meanwhile
            self._receive(pending)
        for pending, call in list(self._calls.items()):
            if call.deadline <= now:
                del self._calls[pending]
                limit = f"rollout.environment.timeout_s = {self._config.timeout_s:g} s"
                where = self._group.stacks([call.rank])[call.rank]
                self._lost(call, f"no answer within {limit}; its process was killed{where}")

    def _lost(self, call: _Call, reason: str) -> None:
        """Starts a process anew. One that does not start is tried again when an episode needs it, and costs
        that episode."""
        if call.hear is None:
            self._group.kill(self._group.actors[call.rank], f"it did not start: {reason}")
            self._free.append(call.rank)
            return
        logger.warning("%s[%d] is started anew: %s", self._name, call.rank, reason)
        self._group.restart(call.rank)
        self._start(call.rank, "ready", hear=None, seconds=STARTUP_S)
        self._fail(call, reason)

    def _fail(self, call: _Call, reason: str) -> None:
        if call.hear is not None:
            call.hear(Reply(error=reason))
