"""The actors of a run by role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlcore.actors.group import ActorGroup
from rlcore.actors.reference_pool import ReferencePool
from rlcore.actors.reward_pool import RewardPool
from rlcore.actors.rollout_pool import RolloutPool


@dataclass(frozen=True, kw_only=True)
class Actors:
    """Actors are everything of a run that lives in other processes, by role."""

    rollout: RolloutPool
    rewards: Mapping[str, RewardPool]
    learner: ActorGroup | None
    """Absent where a policy is only evaluated."""
    reference: ReferencePool | None
    """Absent where no KL is asked for, and where the learner is its own reference."""

    @property
    def needed_learner(self) -> ActorGroup:
        """Returns the learner of a run that trains."""
        assert self.learner is not None, "spawned for evaluation only"
        return self.learner
