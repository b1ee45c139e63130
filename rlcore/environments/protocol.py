"""The protocol of environments: an episode so far goes in, what the policy reads next comes out.

A completion is one sequence of tokens. The policy writes a turn, the environment's text is put behind the
turn, the policy goes on from there. An environment has no state that an episode needs: a process that dies,
or a run that is resumed, costs nothing but the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlcore.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """An episode is a completion that is being written, at the end of a turn."""

    prompt: Prompt
    turns: tuple[str, ...]
    """What the policy wrote, the latest turn last; at least one."""
    observations: tuple[str, ...]
    """What it was answered, one fewer than the turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply is what came of one call."""

    text: str | None = None
    """What the policy reads next; None: the episode is done."""
    error: str | None = None
    """Reason why there is no answer; `rollout.environment.on_error` then decides."""


class Environment(Protocol):
    """An environment answers episodes. It is built from `rollout.environment.args`, once in each process that
    runs it."""

    stop: Sequence[str]
    """Texts that end a turn, and are part of it. A turn that ends otherwise ends the episode, and nobody is
    asked. Empty: every turn is answered that the policy ends itself."""

    def step(self, episode: Episode) -> str | None:
        """Acts on the latest turn. Returns what the policy observes, which may hold the chat template's
        tokens, or None where the episode is done. What is raised counts as `rollout.environment.on_error`
        says."""
        ...
