"""The processes that run an environment, beside one rollout replica.

A call that passes its deadline, or whose process dies, costs one episode alone: the process is started anew,
the episodes of the call are asked once more, one by one, and the one that fails again is told why. The
processes belong to the replica's and end with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
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


@dataclass(slots=True)
class _Asked:
    episode: Episode
    hear: _Hear
    is_suspect: bool = False
    """Whether a call failed that this episode was part of: the next is its own."""


@dataclass(frozen=True, slots=True)
class _Call:
    rank: int
    asked: tuple[_Asked, ...]
    """Empty: the process is starting."""
    deadline: float


class EnvironmentPool:
    """Answers episodes from any thread, in the order in which they come.

    Args:
        name: names the processes in logs and errors.
        fail: told why the pool ended, should it have a defect. Nothing that an environment does ends it.

    Raises:
        ConfigError: the environment cannot be built from `rollout.environment`.
        DeadlineError, ActorError: its processes do not start.
    """

    def __init__(self, config: EnvironmentConfig, name: str, fail: Callable[[BaseException], None]):
        self._config, self._name, self._fail = config, name, fail
        # Ray's bundles are the replica's: these share its CPUs.
        self._group = ActorGroup(
            name, EnvironmentWorker, [{"config": config}] * config.num_workers, num_cpus=0
        )
        (self._stop, *_) = self._group.call("ready", timeout_s=STARTUP_S)
        self._inbox = Inbox()
        self._arrived: deque[_Asked] = deque()
        self._waiting: deque[_Asked] = deque()
        self._free = list(range(config.num_workers))
        self._calls: dict[PendingCall, _Call] = {}
        threading.Thread(target=self._deal, name="environment", daemon=True).start()

    def stop(self) -> tuple[str, ...]:
        """Returns the texts that call the environment."""
        return cast(tuple[str, ...], self._stop)

    def ask(self, calls: Sequence[tuple[Episode, _Hear]]) -> None:
        """Has the environment answer episodes; each one's function is given the reply, on the pool's
        thread."""
        self._arrived.extend(_Asked(episode, hear) for episode, hear in calls)
        self._inbox.wake()

    def _deal(self) -> None:
        try:
            while True:
                while self._arrived:
                    self._waiting.append(self._arrived.popleft())
                while self._free and self._waiting:
                    self._send(self._free.pop())
                first = min((call.deadline for call in self._calls.values()), default=float("inf"))
                for pending in self._inbox.take(min(_LOOK_S, first - time.monotonic())):
                    self._receive(pending)
                self._expire()
        except BaseException as error:
            self._fail(error)

    def _send(self, rank: int) -> None:
        """Gives a free process its share of what waits: a call costs more than most tools do."""
        share = -(-len(self._waiting) // (1 + len(self._free)))
        asked = [self._waiting.popleft()]
        while len(asked) < share and not asked[0].is_suspect and not self._waiting[0].is_suspect:
            asked.append(self._waiting.popleft())
        episodes = [each.episode for each in asked]
        self._start(rank, "step", episodes, asked=asked, seconds=self._config.timeout_s)

    def _start(
        self, rank: int, method: str, *args: object, asked: Sequence[_Asked] = (), seconds: float
    ) -> None:
        pending = self._group.call_one_async(rank, method, *args)
        self._calls[pending] = _Call(rank, tuple(asked), time.monotonic() + seconds)
        self._inbox.expect(pending)

    def _receive(self, pending: PendingCall) -> None:
        call = self._calls.pop(pending, None)
        if call is None:
            return  # it was too late
        (answer,) = pending.answers
        error = answer.exception()
        if error is None:
            self._free.append(call.rank)
            if call.asked:
                self._answered(call, answer.result())
        elif isinstance(error, DEATHS):
            self._lost(call, f"its process died: {last_line(error)}")
        else:  # what was sent or answered could not be read on the other side
            self._free.append(call.rank)
            self._failed(call, f"the call failed: {last_line(error)}")

    def _answered(self, call: _Call, replies: Sequence[Reply]) -> None:
        for each, reply in zip(call.asked, replies, strict=False):
            each.hear(reply)
        self._waiting.extendleft(reversed(call.asked[len(replies) :]))

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
        if not call.asked:
            self._group.kill(self._group.actors[call.rank], f"it did not start: {reason}")
            self._free.append(call.rank)
            return
        logger.warning("%s[%d] is started anew: %s", self._name, call.rank, reason)
        self._group.restart(call.rank)
        self._start(call.rank, "ready", seconds=STARTUP_S)
        self._failed(call, reason)

    def _failed(self, call: _Call, reason: str) -> None:
        """Which of several episodes was to blame cannot be known: each is asked once more, by itself."""
        if len(call.asked) == 1:
            call.asked[0].hear(Reply(error=reason))
            return
        for each in call.asked:
            each.is_suspect = True
        self._waiting.extend(call.asked)
