"""The reward protocol: a reward sees a whole group and returns one `Score` a completion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlcore.types import Completion, Group, Prompt, RewardContext, Score


class Reward:
    """Base of rewards. Subclasses override `score`, or `score_batch` where groups are best scored together
    (a reward model batches better). Rewards are built inside their Ray actor, from `target` and `args`."""

    def score(self, group: Group, context: RewardContext) -> Sequence[Score]:
        """One score a completion, in the completions' order."""
        raise NotImplementedError(f"{type(self).__name__} must define score or score_batch")

    def score_batch(self, groups: Sequence[Group], context: RewardContext) -> Sequence[Sequence[Score]]:
        """Scores of many groups, in the groups' order."""
        return [self.score(group, context) for group in groups]


class FunctionReward(Reward):
    """A plain function of one completion as a reward."""

    def __init__(self, function: Callable[[Prompt, Completion], float]):
        self._function = function

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        return [Score(value=float(self._function(group.prompt, c))) for c in group.completions]
