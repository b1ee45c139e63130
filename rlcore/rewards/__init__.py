"""Rewards: the protocol and the ready-made ones."""

from rlcore.rewards.protocol import FunctionReward, Reward
from rlcore.types import RewardContext, Score

__all__ = ["FunctionReward", "Reward", "RewardContext", "Score"]
