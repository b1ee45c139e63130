"""Settings of an environment: what completions may call on between their turns."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlcore.config.checks import at_least, check, positive
from rlcore.config.io import MAY_CHANGE, Arguments
from rlcore.config.model import TARGET


@dataclass(frozen=True, kw_only=True)
class EnvironmentConfig:
    """The environment that answers completions between their turns (docs/tutorials/tools.md)."""

    target: str | None = None
    """`package.module:Class` of an `rlcore.environments.Environment`; null: completions have one turn."""
    args: Arguments = field(default_factory=dict)
    """Arguments of the class's constructor."""
    max_turns: int = 4
    """Turns of the policy in a completion, its answer included. A call in the last one is not answered: the
    completion counts as cut."""
    max_turn_tokens: int | None = None
    """Tokens of one turn; null: what is left of rollout.max_tokens, which bounds all tokens of a completion,
    those of observations among them."""
    max_observation_tokens: int = 128
    """Tokens of one observation; of more, the environment has failed."""
    num_workers: int = field(default=1, metadata=MAY_CHANGE)
    """Processes beside each rollout replica that run the environment."""
    timeout_s: float = field(default=10.0, metadata=MAY_CHANGE)
    """Seconds that a call may take. A worker that takes longer is killed and started anew."""
    on_error: str = "mask"
    """Fate of a completion whose call failed (raised, hung, died, answered too much): `mask` the completion
    (leave it out of the update), `abort` the run, or any other text, which the policy reads in the
    observation's place."""

    def __post_init__(self) -> None:
        known = self.target is None or bool(TARGET.fullmatch(self.target))
        check(known, "target", self.target, "null, or a class as package.module:Class")
        at_least(self, 1, "max_turns", "max_observation_tokens", "num_workers")
        if self.max_turn_tokens is not None:
            at_least(self, 1, "max_turn_tokens")
        positive(self, "timeout_s")
        check(bool(self.on_error), "on_error", self.on_error, "mask, abort or a text")
