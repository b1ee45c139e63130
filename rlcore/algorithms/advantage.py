"""Advantages from the rewards of G groups of K samples: how much better a sample is than it might have been.

A masked sample enters no mean and no deviation. Deviations are the population's (divided by the count). This
module knows neither where rewards come from nor what is done with advantages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Advantage(Protocol):
    """An advantage estimator is a function from rewards of groups to advantages.

    The arguments are `rewards` [G, K] float64, 0 where masked, `mask` [G, K] bool, True where a sample
    counts, and `eps`, which is added to what is divided by. The function returns [G, K]; what it returns
    where the mask is False is not used.
    """

    def __call__(self, rewards: np.ndarray, mask: np.ndarray, eps: float, /) -> np.ndarray: ...


def grpo(rewards: np.ndarray, mask: np.ndarray, eps: float) -> np.ndarray:
    """Returns (r - group mean) / (group std + eps): DeepSeekMath, arXiv 2402.03300, section 4.1.2."""
    centred = _centre(rewards, mask, axis=1)
    return centred / (_std(centred, mask, axis=1) + eps)


def dr_grpo(rewards: np.ndarray, mask: np.ndarray, eps: float) -> np.ndarray:
    """Returns r - group mean: Dr. GRPO, arXiv 2503.20783. The paper leaves out the deviation because dividing
    by the deviation weighs up prompts whose samples nearly agree. `eps` is not used."""
    return _centre(rewards, mask, axis=1)


def rloo(rewards: np.ndarray, mask: np.ndarray, eps: float) -> np.ndarray:
    """Returns r - mean of the group's *other* samples: REINFORCE leave-one-out, arXiv 2402.14740.

    A sample does not enter its own baseline, so the gradient is unbiased. The result is `dr_grpo` times
    K / (K - 1). A sample alone in its group has no baseline and gets 0. `eps` is not used.
    """
    count_G1 = mask.sum(axis=1, keepdims=True)
    return _centre(rewards, mask, axis=1) * count_G1 / np.maximum(count_G1 - 1, 1)


def reinforce_pp(rewards: np.ndarray, mask: np.ndarray, eps: float) -> np.ndarray:
    """Returns (r - batch mean) / (batch std + eps): REINFORCE++, arXiv 2501.03262.

    The statistics are of the whole batch, so a group whose samples agree still says something. A sequence
    counts once, however long. With `kl_in: reward` every token answers for the KL of its whole sequence; the
    paper's answers for the KL from itself on (returns-to-go).
    """
    centred = _centre(rewards, mask, axis=None)
    return centred / (_std(centred, mask, axis=None) + eps)


def reinforce_pp_baseline(rewards: np.ndarray, mask: np.ndarray, eps: float) -> np.ndarray:
    """Returns `reinforce_pp` of r - group mean ("w/ baseline" in arXiv 2501.03262)."""
    return reinforce_pp(_centre(rewards, mask, axis=1), mask, eps)


def maxrl(rewards: np.ndarray, mask: np.ndarray, eps: float) -> np.ndarray:
    """Returns (r - group mean) / (group mean - group minimum + eps), which lies within [-1, K - 1].

    "Maximum Likelihood Reinforcement Learning", arXiv 2602.02710, algorithm 1, divides by the mean. For
    rewards of 0 and 1 that estimates the gradient of the *log* of the success probability, truncated at order
    K - 1 (K without the group's mean as baseline); the expected reward of GRPO has the gradient of order 1. A
    prompt that is rarely solved pulls as hard as likelihood would, and minority answers survive. Here the
    mean is measured from the lowest reward of the group (the same where that is 0), so that what all samples
    earn (format) does not count as success.
    """
    centred = _centre(rewards, mask, axis=1)
    above_lowest = -np.where(mask, centred, np.inf).min(axis=1, keepdims=True, initial=0.0)
    return centred / (above_lowest + eps)


def pass_at_k(rewards: np.ndarray, mask: np.ndarray, eps: float, *, k: int = 4) -> np.ndarray:
    """Returns (M_i - M) / (S + eps): Pass@k training in its analytical form, arXiv 2508.10751.

    A set of k samples earns what its best sample does. Over all such sets of a group, M is the mean of what a
    set earns and S its deviation; M_i is the mean over the sets that hold sample i. For rewards of 0 and 1
    with w wrong ones of K that is the paper's: M = 1 - C(w, k) / C(K, k), S = sqrt(M (1 - M)), M_i = 1 for a
    right sample and 1 - C(w - 1, k - 1) / C(K - 1, k - 1) for a wrong one (checked against the authors'
    RUCAIBox/Passk_Training). With k = 1 it is `grpo`; where a group has no more than k samples all get 0.
    """
    advantages = np.zeros(rewards.shape)
    for g, counts in enumerate(mask):
        samples = np.flatnonzero(counts)
        ascending = samples[np.argsort(rewards[g, samples], kind="stable")]
        if ascending.size:
            advantages[g, ascending] = _best_of_sets(rewards[g, ascending], min(k, ascending.size), eps)
    return advantages


def gdpo(rewards: np.ndarray, mask: np.ndarray, eps: float) -> np.ndarray:
    """Returns `reinforce_pp` of `grpo`: GDPO of a single reward, arXiv 2601.05242. `decoupled_advantages` is
    that of several, and what `algorithm.advantage: gdpo` trains on."""
    return reinforce_pp(grpo(rewards, mask, eps), mask, eps)


ADVANTAGES: dict[str, Advantage] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "reinforce_pp": reinforce_pp,
    "reinforce_pp_baseline": reinforce_pp_baseline,
    "maxrl": maxrl,
    "pass_at_k": pass_at_k,
    "gdpo": gdpo,
}
"""The advantage estimators by their names in `algorithm.advantage`."""


def group_advantages(
    rewards: np.ndarray, mask: np.ndarray | None = None, *, estimator: Advantage = grpo, eps: float = 1e-6
) -> np.ndarray:
    """Returns the advantages of G groups of K samples as float32 [G, K].

    An advantage is 0 where masked, and exactly 0 where all that is compared is equal.

    Args:
        rewards: [G, K].
        mask: [G, K] bool, True where the sample counts; None counts all.
        estimator: one of `ADVANTAGES`, or a function of your own.
        eps: is added to the deviation where the estimator divides by one.

    Raises:
        ValueError: the shapes disagree, or a reward or an advantage that counts is not finite.
    """
    rewards, mask = _counted(rewards, mask)
    advantages = np.asarray(estimator(rewards, mask.copy(), eps))
    if advantages.shape != rewards.shape:
        raise ValueError(f"algorithm.advantage: must return {rewards.shape}, got {advantages.shape}")
    with np.errstate(over="ignore"):
        advantages = np.where(mask, advantages, 0.0).astype(np.float32)
    if not np.isfinite(advantages).all():
        raise ValueError("algorithm.advantage: an advantage is NaN or infinite; are rewards this large?")
    return advantages


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardTerm:
    """A reward term is one reward of a weighted sum."""

    values: np.ndarray
    """float64 [G, K]; NaN where a score failed."""
    weights: np.ndarray
    """Weights of the reward, float64 [G], trust weight and schedule included."""


def decoupled_advantages(terms: Sequence[RewardTerm], mask: np.ndarray, *, eps: float = 1e-6) -> np.ndarray:
    """Returns the advantages of a sum of rewards, each normalised by itself, as float32 [G, K].

    GDPO, arXiv 2601.05242: A = sum_i w_i `grpo`(r_i), then (A - batch mean) / (batch std + eps). Rewards of a
    wide range do not drown the others, and sums that happen to be equal stay apart. The weights are factors
    of the normalised rewards, because the deviation would take a factor of the reward out again. A sequence
    counts once in the batch's statistics, however long.

    Args:
        terms: the rewards of the sum.
        mask: [G, K] bool, True where the sample counts.
        eps: is added to both deviations.

    Raises:
        ValueError: as `group_advantages`.
    """
    total = np.zeros(mask.shape)
    for term in terms:
        total += term.weights[:, None] * grpo(*_counted(term.values, mask), eps)
    return group_advantages(total, mask, estimator=reinforce_pp, eps=eps)


def _best_of_sets(ascending: np.ndarray, k: int, eps: float) -> np.ndarray:
    """The advantages [N] of rewards [N] in ascending order, of which every set of k earns its best."""
    num_samples, values = len(ascending), ascending - ascending[0]
    ranks = range(num_samples)
    num_sets, with_one = math.comb(num_samples, k), math.comb(num_samples - 1, k - 1)
    is_best = np.array([math.comb(j, k - 1) / num_sets for j in ranks])
    mean = is_best @ values
    std = np.sqrt(is_best @ (values - mean) ** 2)
    # Of the sets that hold sample i, the best is i itself, or a j above it: then k - 2 others are below j.
    itself = np.array([math.comb(i, k - 1) / with_one for i in ranks]) * values
    others = [math.comb(j - 1, k - 2) / with_one if j > 0 and k > 1 else 0.0 for j in ranks]
    above = np.array(others) * values
    return (itself + above.sum() - above.cumsum() - mean) / (std + eps)


def _counted(rewards: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The rewards [G, K] as float64 with 0 where masked, and the mask, after a check of both."""
    rewards = np.asarray(rewards, dtype=np.float64)
    if rewards.ndim != 2:
        raise ValueError(f"rewards must be [G, K], got shape {rewards.shape}")
    mask = np.ones(rewards.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if mask.shape != rewards.shape:
        raise ValueError(f"mask must have the rewards' shape {rewards.shape}, got {mask.shape}")
    if not np.isfinite(rewards[mask]).all():
        raise ValueError("a reward that is not masked is NaN or infinite; mask the sample or fix its reward")
    return np.where(mask, rewards, 0.0), mask


def _centre(values: np.ndarray, mask: np.ndarray, axis: int | None) -> np.ndarray:
    """Values minus their mean over `axis` (None: over all), 0 where masked.

    The smallest is subtracted first, which the mean does not care about, and equal values give exactly 0.
    """
    low = np.where(mask, values, np.inf).min(axis=axis, keepdims=True, initial=np.inf)
    shifted = np.where(mask, values - np.where(np.isfinite(low), low, 0.0), 0.0)
    count = np.maximum(mask.sum(axis=axis, keepdims=True), 1)
    return np.where(mask, shifted - shifted.sum(axis=axis, keepdims=True) / count, 0.0)


def _std(centred: np.ndarray, mask: np.ndarray, axis: int | None) -> np.ndarray:
    count = np.maximum(mask.sum(axis=axis, keepdims=True), 1)
    return np.sqrt((centred**2).sum(axis=axis, keepdims=True) / count)
