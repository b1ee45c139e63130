"""The reward actor: groups in, scores out. A plain class, which `rlcore.actors.reward_pool` spawns. A reward
that holds an engine needs `rlcore.models.engine_environment.engine_env` in its environment."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping, Sequence

from rlcore.config import RewardConfig
from rlcore.rewards.loading import build_reward, record_of
from rlcore.rewards.protocol import Reward, describe_error, failed_scores, has_order, plain_text
from rlcore.types import Group, RewardContext, Score

logger = logging.getLogger(__name__)


class RewardWorker:
    """One reward in one process.

    Args:
        name: the reward's key in `rewards`, for errors.
        config: the reward's section of the configuration.

    Raises:
        ConfigError: the reward cannot be built from its section.
    """

    def __init__(self, name: str, config: RewardConfig):
        self.name, self._config = name, config
        self._reward = build_reward(config, where=f"rewards.{name}")

    def ready(self) -> dict[str, object]:
        """Answers once the reward is built, with its record (`rlcore.rewards.loading.record_of`)."""
        return record_of(self._config)

    def score(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        """Scores groups: one score per completion, [G][K].

        A failure of the reward is data. An exception or a wrong count becomes an error on every completion of
        the group; a value that is no finite number, an error on its own completion. A call of several
        groups that raises is repeated one group at a time, so that the group it failed on can be named.
        `rlcore.rewards.policy` decides what becomes of errors.
        """
        if type(self._reward).score_batch is Reward.score_batch or len(groups) == 1:
            return [self._score_alone(group, context) for group in groups]
        try:
            return self._score_together(groups, context)
        except Exception:  # the boundary to foreign code
            logger.exception("reward %s failed on %d groups; each is tried alone", self.name, len(groups))
            return [self._score_alone(group, context) for group in groups]

    def _score_alone(self, group: Group, context: RewardContext) -> list[Score]:
        reason = ""
        for _ in range(1 + self._config.retries):
            try:
                return self._score_together([group], context)[0]
            except Exception as error:  # the boundary to foreign code
                reason = describe_error(error)
        return failed_scores(group, reason)

    def _score_together(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        answers = self._reward.score_batch(groups, context)
        if not has_order(answers):
            raise ValueError(f"score_batch returned {type(answers).__name__} where a list a group is due")
        answers = list(answers)
        if len(answers) != len(groups):
            raise ValueError(f"score_batch returned {len(answers)} lists for {len(groups)} groups")
        return [checked_scores(group, scores) for group, scores in zip(groups, answers, strict=True)]

    def gpu_memory(self) -> float | None:
        """Returns the most GPU memory that torch has held in this process, in MiB; None without torch or a
        GPU."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_available():
            return None
        return torch.cuda.max_memory_reserved() / 2**20


def checked_scores(group: Group, scores: Sequence[Score]) -> list[Score]:
    """Returns the scores of one group, with an error in place of each that no one can use."""
    if not has_order(scores):
        return failed_scores(group, f"returned {type(scores).__name__} where one Score a completion is due")
    scores = list(scores)
    if len(scores) != len(group.completions):
        return failed_scores(group, f"returned {len(scores)} scores for {len(group.completions)} completions")
    return [_checked(score, len(c.token_ids)) for score, c in zip(scores, group.completions, strict=True)]


def _checked(score: Score, num_tokens: int) -> Score:
    """Returns the score in floats and plain text, whatever the reward's author or a service put there: scores
    are averaged and written down."""
    if not isinstance(score, Score):
        return _failed(f"returned {type(score).__name__} where a Score is due")
    if score.error is not None:
        return _failed(score.error)
    for name, values in (("parts", score.parts), ("token_values", score.token_values)):
        if not isinstance(values, Mapping):
            return _failed(f"{name} is {values!r}; it must be a mapping")
    for part, value in (("value", score.value), *score.parts.items()):
        if not _is_finite(value):
            return _failed(f"{part} is {value!r}; it must be a finite number")
    for at, value in score.token_values.items():
        if not isinstance(at, int) or not 0 <= at < num_tokens:
            return _failed(f"token_values names token {at!r}; the completion has {num_tokens}")
        if not _is_finite(value):
            return _failed(f"token_values[{at}] is {value!r}; it must be a finite number")
    if not has_order(score.token_advantages):
        return _failed(f"token_advantages are {score.token_advantages!r}; they must be a list")
    advantages = list(score.token_advantages)
    if len(advantages) not in (0, num_tokens):
        return _failed(f"token_advantages are {len(advantages)}; the completion has {num_tokens} tokens")
    for at, value in enumerate(advantages):
        if not _is_finite(value):
            return _failed(f"token_advantages[{at}] is {value!r}; it must be a finite number")
    return Score(
        float(score.value),
        parts={plain_text(part): float(value) for part, value in score.parts.items()},
        token_values={at: float(value) for at, value in score.token_values.items()},
        token_advantages=tuple(map(float, advantages)),
    )


def _failed(reason: object) -> Score:
    return Score(0.0, error=plain_text(reason))


def _is_finite(value: object) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(value)  # type: ignore[arg-type]
    except Exception:  # no number, one that no float can hold, or what an author's class raises
        return False
