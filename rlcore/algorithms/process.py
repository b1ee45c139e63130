"""Process supervision: from values of single tokens, due at the end of each step, to advantages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rlcore.algorithms.advantage import group_advantages

TokenValues = Sequence[Sequence[Mapping[int, float]]]
"""[G][K] of token index to value."""


def token_advantages(
    values: TokenValues,
    lengths: np.ndarray,
    mask: np.ndarray,
    *,
    estimator: str = "grpo",
    eps: float = 1e-6,
    discount: float = 1.0,
) -> list[list[np.ndarray]] | None:
    """A_t = sum over s >= t of discount^(s - t) r~_s, where s counts steps and t is the token's own, the next
    that ends at it or later: DeepSeekMath, arXiv 2402.03300, section 4.1.3, which has no discount. r~ are the
    values of all steps of all samples of a group, normalised by `estimator` as the rewards of samples are.

    `lengths` int [G, K]: tokens of each completion; `mask` bool [G, K], False where a sample does not count.
    Returns [G][K] of float32 [T], 0 where masked; None where `values` are empty.
    Raises as `group_advantages`.
    """
    if not values:
        return None
    steps = [
        [(k, at, value) for k, of_sample in enumerate(row) if mask[g, k] for at, value in of_sample.items()]
        for g, row in enumerate(values)
    ]
    counts = np.array([len(of_group) for of_group in steps])
    is_step = np.arange(counts.max(initial=0)) < counts[:, None]  # [G, S]
    rewards = np.zeros(is_step.shape)
    rewards[is_step] = [value for of_group in steps for _, _, value in of_group]
    normalised = group_advantages(rewards, is_step, estimator=estimator, eps=eps)
    advantages = [[np.zeros(length, dtype=np.float32) for length in row] for row in lengths]
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
                advantages[g][k][start : at + 1] = to_go
    return advantages
