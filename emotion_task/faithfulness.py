"""A reward for reasoning that says what was measured. Rules only: no model, no GPU, microseconds a word."""

from __future__ import annotations

from emotion_task.evaluation.faithfulness import Tally, check_response, total
from rlcore.errors import ConfigError
from rlcore.rewards.base import Reward
from rlcore.types import Group, RewardContext, Score


class FaithfulnessReward(Reward):
    """Right claims less wrong ones, per fact that was measured: (right - wrong_cost * wrong) / facts.

    1 states every measured fact and nothing wrong, 0 says nothing that can be checked, -`wrong_cost` or less
    is wrong throughout. With the default a blind guess among three levels is worth nothing on average
    (1/3 - 0.5 * 2/3), so guessing does not pay and neither does silence. A quotation or a stressed word that
    was never spoken is a wrong claim; a right quotation earns nothing, since quoting more is not seeing more.

    Parts: `precision`, `recall` and `contradictions` (a count), as in
    `emotion_task.evaluation.faithfulness.Tally`, over all claim types.

    Args:
        wrong_cost: at least 0; what a wrong claim costs, where a right one earns 1.
    """

    def __init__(self, wrong_cost: float = 0.5):
        if not wrong_cost >= 0:
            raise ConfigError(f"wrong_cost: got {wrong_cost}; allowed is 0 or more")
        self._wrong_cost = wrong_cost

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        reference = group.prompt.reference
        return [self._score(total(check_response(c.text, reference))) for c in group.completions]

    def _score(self, tally: Tally) -> Score:
        wrong = tally.num_checked - tally.num_right
        return Score(
            value=max(-1.0, (tally.num_right - self._wrong_cost * wrong) / max(1, tally.num_facts)),
            parts={
                "precision": tally.precision,
                "recall": tally.recall,
                "contradictions": float(tally.num_contradictions),
            },
        )
