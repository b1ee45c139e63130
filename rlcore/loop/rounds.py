"""Rounds: the prompts that are generated when, the groups that a step uses, and the bound on staleness.

A *round* is the material of one training step. Rounds are trained in order; at most `staleness` rounds beyond
the one that is trained next are open, so a group whose first token was written at version v is trained on at
version v + staleness at most, whatever finishes when: with 0 the loop is synchronous, and there is no other.

    open(step) -> tickets to generate -> add / drop each -> is_ready(step) -> take(step)

A round begins with `prompts_per_step` prompts, and the share `oversample` more. A group that arrives without
signal is replaced by a new prompt, `max_replaced` times. The round is ready once `prompts_per_step` groups
count or nothing more is to come; what is still being generated for it is then cancelled.

A plain class: it knows neither actors nor what a group is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

G = TypeVar("G")


@dataclass(frozen=True, slots=True, order=True)
class Ticket:
    """A ticket is one prompt to generate for one round."""

    step: int
    """The round: the training step (from 0) that will use it."""
    position: int
    """In the stream of prompts; never given twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Changes are what has to happen after a group has come in."""

    new: tuple[Ticket, ...] = ()
    """To generate in the place of groups without signal."""
    cancelled: tuple[Ticket, ...] = ()
    """To be generated no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round(Generic[G]):
    """A round holds the groups of one training step."""

    step: int
    groups: tuple[G, ...]
    """In the order of their prompts, those without signal included."""
    num_replaced: int
    """Prompts that were generated in the place of groups without signal."""
    num_cancelled: int
    """Prompts whose generation was ended, or whose group came too late to be used."""
    num_dropped: int
    """Prompts that could not be generated (over the context)."""
    num_failed: int
    """Prompts whose generation the engine gave up."""


@dataclass(slots=True)
class _OpenRound(Generic[G]):
    initial: tuple[Ticket, ...]
    pending: set[Ticket]
    groups: dict[Ticket, G] = field(default_factory=dict)
    num_counting: int = 0
    num_replaced: int = 0
    num_cancelled: int = 0
    num_dropped: int = 0
    num_failed: int = 0


class GroupBuffer(Generic[G]):
    """The buffer holds the rounds that are open.

    Args:
        prompts_per_step: groups that make a round.
        staleness: rounds open beyond the one that is trained next.
        oversample: share of prompts generated beyond `prompts_per_step`, at the start of a round.
        max_replaced: prompts of a round that may be generated in the place of groups that do not count.
    """

    def __init__(
        self, prompts_per_step: int, *, staleness: int = 0, oversample: float = 0.0, max_replaced: int = 0
    ):
        self._per_step, self._staleness, self._max_replaced = prompts_per_step, staleness, max_replaced
        self._per_round = math.ceil(prompts_per_step * (1 + oversample) - 1e-9)
        self._rounds: dict[int, _OpenRound[G]] = {}
        self._next_round = 0
        self._next_position = 0
        self._reopened: dict[int, tuple[Ticket, ...]] = {}

    def open(self, step: int, num_steps: int) -> list[Ticket]:
        """Opens every round that may be open while `step` is trained next, up to `num_steps`. Returns the
        tickets to generate."""
        tickets: list[Ticket] = []
        for number in range(max(step, self._next_round), min(step + self._staleness + 1, num_steps)):
            initial = self._reopened.pop(number, ())
            # A reopened round has all of its prompts, unless a resumed run takes more per step.
            initial += tuple(self._issue(number) for _ in range(self._per_round - len(initial)))
            self._rounds[number] = _OpenRound(initial=initial, pending=set(initial))
            self._next_round = number + 1
            tickets += initial
        return tickets

    def add(self, ticket: Ticket, group: G, *, counts: bool = True) -> Changes:
        """Takes a finished group. One that was cancelled meanwhile is thrown away."""
        round_ = self._rounds.get(ticket.step)
        if round_ is None or ticket not in round_.pending:
            return Changes()
        round_.pending.remove(ticket)
        round_.groups[ticket] = group
        if not counts:
            return self._replace(ticket.step, round_)
        round_.num_counting += 1
        if round_.num_counting < self._per_step:
            return Changes()
        cancelled = tuple(sorted(round_.pending))
        round_.pending.clear()
        round_.num_cancelled += len(cancelled)
        return Changes(cancelled=cancelled)

    def drop(self, ticket: Ticket, *, has_failed: bool = False) -> None:
        """Makes a round smaller by a prompt that cannot be generated at all, or whose generation failed."""
        round_ = self._rounds.get(ticket.step)
        if round_ is not None and ticket in round_.pending:
            round_.pending.remove(ticket)
            round_.num_dropped += not has_failed
            round_.num_failed += has_failed

    def is_ready(self, step: int) -> bool:
        """Says whether the round of `step` has all that it will get."""
        return step in self._rounds and not self._rounds[step].pending

    def is_pending(self, ticket: Ticket) -> bool:
        """Says whether the group of a ticket is still needed."""
        return ticket.step in self._rounds and ticket in self._rounds[ticket.step].pending

    @property
    def num_issued(self) -> int:
        """Number of prompts of the stream that rounds were given."""
        return self._next_position

    def pending(self, step: int) -> int:
        """Returns how many tickets of a round have not come in."""
        return len(self._rounds[step].pending) if step in self._rounds else 0

    def take(self, step: int) -> Round[G]:
        """Returns the round of `step`, which leaves the buffer. Rounds go in order, and once."""
        assert self.is_ready(step) and step == min(self._rounds), (step, sorted(self._rounds))
        round_ = self._rounds.pop(step)
        return Round(
            step=step,
            groups=tuple(round_.groups[ticket] for ticket in sorted(round_.groups)),
            num_replaced=round_.num_replaced,
            num_cancelled=round_.num_cancelled,
            num_dropped=round_.num_dropped,
            num_failed=round_.num_failed,
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as JSON values. Rounds that are open will be generated again, from the prompts
        that they began with."""
        open_rounds = {str(n): [t.position for t in r.initial] for n, r in self._rounds.items()}
        waiting = {str(n): [t.position for t in tickets] for n, tickets in self._reopened.items()}
        return {"next_position": self._next_position, "open_rounds": {**waiting, **open_rounds}}

    def load_state_dict(self, state: Mapping[str, Any], *, step: int) -> None:
        """Goes on before `step`, whose round is generated (again) next."""
        assert not self._rounds, "this buffer is in use"
        self._next_round, self._next_position = step, int(state["next_position"])
        self._reopened = {
            int(number): tuple(Ticket(int(number), int(position)) for position in positions)
            for number, positions in state["open_rounds"].items()
        }

    def _issue(self, step: int) -> Ticket:
        ticket = Ticket(step, self._next_position)
        self._next_position += 1
        return ticket

    def _replace(self, step: int, round_: _OpenRound[G]) -> Changes:
        """A new prompt, unless those under way would do, or enough have been tried."""
        missing = self._per_step - round_.num_counting - len(round_.pending)
        if missing <= 0 or round_.num_replaced >= self._max_replaced:
            return Changes()
        round_.num_replaced += 1
        ticket = self._issue(step)
        round_.pending.add(ticket)
        return Changes(new=(ticket,))
