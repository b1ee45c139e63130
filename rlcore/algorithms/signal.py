"""The groups that a policy gradient can learn from: the one predicate, asked wherever groups are counted,
replaced or dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

ROUNDING = 1e-9
"""Rewards that differ by less than this share of the largest (of 1, where all are smaller) are equal."""


def groups_with_signal(
    rewards: np.ndarray, mask: np.ndarray, steps: Sequence[Sequence[Sequence[Mapping[int, float]]]] = ()
) -> np.ndarray:
    """Returns bool [G]: whether a group's counting samples differ in reward, or in the values of their steps.

    `rewards` and `mask` are [G, K]; `steps` is [G][K] of token index to value, for each reward that judges
    steps. Differences within rounding (0.1 + 0.2 against 0.3) are none. DAPO (arXiv 2503.14476, section 3.2)
    leaves groups without signal out of the batch: their gradient is zero and they dilute the mean.
    """
    low = np.where(mask, rewards, np.inf).min(axis=1, initial=np.inf)
    high = np.where(mask, rewards, -np.inf).max(axis=1, initial=-np.inf)
    differ = np.array([_differ(*pair) for pair in zip(low, high, strict=True)], dtype=bool)
    for of_reward in steps:
        for g, row in enumerate(of_reward):
            values = [value for k, of_sample in enumerate(row) if mask[g, k] for value in of_sample.values()]
            differ[g] |= bool(values) and _differ(min(values), max(values))
    return differ


def _differ(low: float, high: float) -> bool:
    """Whether values are further apart than rounding. A group without samples has `low` above `high`."""
    return high > low + ROUNDING * max(1.0, abs(low), abs(high))
