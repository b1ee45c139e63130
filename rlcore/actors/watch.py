"""A watch over actors that work for minutes: one that is frozen becomes one that died.

An actor that is busy answers a ping all the same, from a thread beside the one that works
(`ActorGroup.ping`). A process that was stopped, or that nothing wakes any more, does not. It is killed, so
that whoever waits for its answer hears of a death at once, and not of a deadline an hour later.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from rlcore.actors.group import ActorGroup

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks."""
SILENT_LOOKS = 15
"""Looks in a row without a sign of life. They are counted, not timed: where this process itself was stopped
for a while, the others had no chance to answer."""


@dataclass(slots=True)
class _Pulse:
    ping: Future[Any]
    num_silent: int = 0
    is_up: bool = False
    """It has answered before: an actor that waits for a node, or is still starting, has nothing to answer
    with."""


class Watch:
    """Watches the actors of some groups, which are `is_watched`, until `close`."""

    def __init__(self, groups: Sequence[ActorGroup]):
        self._groups = groups
        self._pulses: dict[Any, _Pulse] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the watch."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Takes the answers that have come, asks anew, and kills who has been silent for too long."""
        known = {(group, rank, actor) for group in self._groups for rank, actor in enumerate(group.actors)}
        self._pulses = {actor: self._pulses.get(actor) or _Pulse(g.ping(actor)) for g, _, actor in known}
        for group, rank, actor in known:
            pulse = self._pulses[actor]
            if not pulse.ping.done():
                pulse.num_silent += pulse.is_up
                if pulse.num_silent == SILENT_LOOKS:
                    reason = f"it gave no sign of life for {SILENT_LOOKS * LOOK_S:g} s"
                    where = group.where([rank])
                    logger.warning("%s[%d]%s is killed: %s", group.name, rank, where, reason)
                    group.kill(actor, f"it was killed, as {reason}")
            elif pulse.ping.exception() is None:
                self._pulses[actor] = _Pulse(group.ping(actor), is_up=True)
