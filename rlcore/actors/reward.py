"""The reward actor: groups in, scores out. A plain class; it is wrapped where it is spawned. A reward that
holds an engine needs `rlcore.engines.vllm_engine.engine_env` in its environment."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Sequence

from rlcore.config import RewardConfig
from rlcore.errors import ConfigError
from rlcore.rewards.base import FunctionReward, Reward
from rlcore.targets import build_target, load_target
from rlcore.types import Group, RewardContext, Score

logger = logging.getLogger(__name__)


class RewardWorker:
    """One reward in one process.

    Args:
        name: its key in `rewards`, for errors.
        config: `target` names a `Reward` class, built with `args`, or a function of (prompt, completion)
            to a number.

    Raises:
        ConfigError: the target does not import, is neither, or refuses its arguments.
    """

    def __init__(self, name: str, config: RewardConfig):
        self.name = name
        self._reward = build_reward(name, config)

    def ready(self) -> str:
        """Answers once the reward is built, with its name."""
        return self.name

    def score(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        """One score a completion, [G][K].

        What the reward gets wrong is data: an exception becomes an error on every completion of the call,
        a wrong count one on those of its group, a value that is no finite number one on its own completion.
        `rlcore.rewards.policy` decides what becomes of them.
        """
        try:
            answers = list(self._reward.score_batch(groups, context))
            if len(answers) != len(groups):
                raise ValueError(f"score_batch returned {len(answers)} lists for {len(groups)} groups")
        except Exception as error:  # the boundary to foreign code
            logger.exception("reward %s failed on %d groups", self.name, len(groups))
            reason = f"{type(error).__name__}: {error}"
            return [[Score(value=0.0, error=reason) for _ in group.completions] for group in groups]
        return [checked_scores(group, scores) for group, scores in zip(groups, answers, strict=True)]


def build_reward(name: str, config: RewardConfig) -> Reward:
    """The reward that a section of the configuration names."""
    where = f"rewards.{name}"
    target = load_target(config.target, where=where)
    if inspect.isclass(target):
        reward = build_target(config.target, config.args, where=where)
        if not isinstance(reward, Reward):
            raise ConfigError(f"{where}.target: {config.target} is no subclass of rlcore.rewards.Reward")
        return reward
    if not callable(target):
        raise ConfigError(f"{where}.target: {config.target} is neither a Reward class nor a function")
    if config.args:
        raise ConfigError(
            f"{where}.args: {config.target} is a function of (prompt, completion) and takes none"
        )
    return FunctionReward(target)


def checked_scores(group: Group, scores: Sequence[Score]) -> list[Score]:
    """The scores of one group, with an error in place of what no one can use."""
    scores = list(scores)
    if len(scores) != len(group.completions):
        reason = f"returned {len(scores)} scores for {len(group.completions)} completions"
        return [Score(value=0.0, error=reason) for _ in group.completions]
    return [_checked(score) for score in scores]


def _checked(score: Score) -> Score:
    if not isinstance(score, Score):
        return Score(value=0.0, error=f"returned {type(score).__name__} where a Score is due")
    if score.error is not None:
        return score
    for part, value in (("value", score.value), *score.parts.items()):
        if isinstance(value, bool) or not _is_finite(value):
            return Score(value=0.0, error=f"{part} is {value!r}; it must be a finite number")
    return score


def _is_finite(value: object) -> bool:
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except TypeError:
        return False
