"""A watch over actors: one that is frozen becomes one that died.

An actor that is busy beats all the same, from a thread beside the one that works
(`rlcore.actors.heartbeat`). A process that was stopped, or one of whose threads keeps Python's lock, does
not. It is killed, so that whoever waits for its answer hears of a death at once, and not of a deadline an
hour later.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from rlcore.actors.group import ActorGroup
from rlcore.actors.heartbeat import heartbeats
from rlcore.actors.processes import ask_stack, process_of, told

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks."""
SILENT_LOOKS = 15
"""Looks in a row without a new beat. They are counted, not timed: where this process itself was stopped for a
while, so may have been the others."""
_ASK_LOOKS = 5
"""Looks in a row after which the node is asked what the silent process is doing."""
_JOIN_S = 10.0
"""Longest that `close` waits for a look, which ends by itself."""


@dataclass(slots=True)
class _Pulse:
    beat: bytes
    """The last one. There is none of an actor that waits for a node, or is still starting."""
    num_silent: int = 0
    stack: Future[str] | None = None


class Watch:
    """Watches the actors of some groups until `close`."""

    def __init__(self, groups: Sequence[ActorGroup]):
        self._groups = groups
        self._pulses: dict[Any, _Pulse] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the watch."""
        self._end.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        is_away = False
        while not self._end.wait(LOOK_S):
            try:
                self.look()
                is_away = False
            except Exception as error:  # of a store that is away: who is silent cannot be told
                if not is_away:
                    logger.warning("no heartbeats of the actors: %s", error)
                is_away = True
                self._pulses.clear()  # they had nowhere to beat either

    def look(self) -> None:
        """Reads the beats, and kills who has been silent for too long."""
        known = [(group, rank, actor) for group in self._groups for rank, actor in enumerate(group.actors)]
        beats = heartbeats([actor for *_, actor in known])
        pulses, self._pulses = self._pulses, {}
        for group, rank, actor in known:
            beat, pulse = beats.get(actor), pulses.get(actor)
            if beat is None:
                continue
            if pulse is None or pulse.beat != beat:
                pulse = _Pulse(beat)
            else:
                pulse.num_silent += 1
            self._pulses[actor] = pulse
            if pulse.num_silent == _ASK_LOOKS:
                pulse.stack = ask_stack(actor)
            elif pulse.num_silent == SILENT_LOOKS:
                self._end_silent(group, rank, actor, pulse)

    def _end_silent(self, group: ActorGroup, rank: int, actor: Any, pulse: _Pulse) -> None:
        process = process_of(actor)
        pid = int(pulse.beat.split()[0])
        if process is None or not process.is_alive or process.pid != pid:
            pulse.num_silent = 0  # it has died by itself, or a new process of it is being started
            return
        stack = "" if pulse.stack is None else told(pulse.stack)
        silence = f"process {pid} gave no sign of life for {SILENT_LOOKS * LOOK_S:g} s{stack}"
        logger.warning("%s[%d] on %s is killed: %s", group.name, rank, process.address, silence)
        group.kill(actor, f"it was killed, as {silence}")
