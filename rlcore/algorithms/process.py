"""Advantages of single tokens: from values that are due at the end of each step (process supervision), and
those that a reward gives as they are (distillation).

This module knows neither which reward judged a token nor how an advantage enters the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlcore.algorithms.advantage import Advantage, group_advantages, grpo

TokenValues = Sequence[Sequence[Mapping[int, float]]]
"""Values of tokens: [G][K] of token index to value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepValues:
    """Step values are what one reward gives to the steps of answers, and how much these values count."""

    values: TokenValues
    """Values of steps: [G][K] of the index of a step's last token to the value of the step."""
    weights: np.ndarray
    """Weights of the reward, float64 [G], trust weight and schedule included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAdvantages:
    """Given advantages are what one reward says of each token, not to be normalised."""

    rows: Sequence[Sequence[Sequence[float]]]
    """[G][K] of [T]; empty where the reward says nothing of a completion."""
    weights: np.ndarray
    """Weights of the reward, float64 [G], trust weight and schedule included."""


def token_advantages(
    steps: Sequence[StepValues],
    lengths: np.ndarray,
    mask: np.ndarray,
    *,
    given: Sequence[GivenAdvantages] = (),
    estimator: Advantage = grpo,
    eps: float = 1e-6,
    discount: float = 1.0,
) -> list[list[np.ndarray]] | None:
    """Returns the advantages of tokens: [G][K] of float32 [T], or None where `steps` and `given` are empty.

    A_t = sum over s >= t of discount^(s - t) r~_s (DeepSeekMath, arXiv 2402.03300, section 4.1.3, which has
    no discount). Here s counts steps, and t is the token's own step: the next that ends at the token or
    later. The r~ are the values of all steps of all samples of a group, normalised by `estimator` as the
    rewards of samples are. Each reward's values are normalised by themselves and weighted then, because the
    other way round the deviation would take the weight out again. A is the sum over `steps`, one for each
    reward, and over `given`, whose rows are weighted and taken as they are.

    Args:
        steps: the values of each reward that judges steps.
        lengths: int [G, K], the tokens of each completion.
        mask: bool [G, K], False where a sample does not count; its tokens get 0.
        given: the advantages of each reward that gives them itself.
        estimator: one of `rlcore.algorithms.advantage.ADVANTAGES`, or a function of your own.
        eps: is added to the deviation where the estimator divides by one.
        discount: factor for each step between a token and the value, in [0, 1].

    Raises:
        ValueError: as `group_advantages`.
    """
    if not steps and not given:
        return None
    advantages = [[np.zeros(length, dtype=np.float32) for length in row] for row in lengths]
    for of_reward in steps:
        _add(advantages, of_reward, mask, estimator, eps, discount)
    for each in given:
        for g, k in np.argwhere(mask).tolist():
            if len(each.rows[g][k]):
                advantages[g][k] += np.asarray(each.rows[g][k], dtype=np.float32) * each.weights[g]
    return advantages


def _add(
    advantages: list[list[np.ndarray]],
    of_reward: StepValues,
    mask: np.ndarray,
    estimator: Advantage,
    eps: float,
    discount: float,
) -> None:
    steps = [
        [(k, at, value) for k, of_sample in enumerate(row) if mask[g, k] for at, value in of_sample.items()]
        for g, row in enumerate(of_reward.values)
    ]
    counts = np.array([len(of_group) for of_group in steps])
    is_step = np.arange(counts.max(initial=0)) < counts[:, None]  # [G, S]
    rewards = np.zeros(is_step.shape)
    rewards[is_step] = [value for of_group in steps for _, _, value in of_group]
    normalised = group_advantages(rewards, is_step, estimator=estimator, eps=eps)
    normalised = normalised * of_reward.weights[:, None]
    for g, of_group in enumerate(steps):
        of_samples: dict[int, list[tuple[int, float]]] = {}
        for (k, at, _), value in zip(of_group, normalised[g], strict=False):
            of_samples.setdefault(k, []).append((at, float(value)))
        for k, of_sample in of_samples.items():
            of_sample.sort()
            starts = [0] + [at + 1 for at, _ in of_sample[:-1]]
            to_go = 0.0
            for start, (at, value) in zip(reversed(starts), reversed(of_sample), strict=True):
                to_go = value + discount * to_go
                advantages[g][k][start : at + 1] += to_go
