"""The rewards of the emotion task, named in configurations as `emotion_task.rewards:NAME`."""

from emotion_task.rewards.faithfulness import FaithfulnessReward
from emotion_task.rewards.label_follows import LabelFollowsClaimsReward
from emotion_task.rewards.ptr import FormatReward, OutcomeReward, ReasoningReward

__all__ = [
    "FaithfulnessReward",
    "FormatReward",
    "LabelFollowsClaimsReward",
    "OutcomeReward",
    "ReasoningReward",
]
