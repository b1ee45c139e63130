"""Group-relative advantages: a sample is as good as it is better than its siblings.

GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2) subtracts the group's mean reward and divides by the
group's standard deviation; Dr. GRPO (arXiv 2503.20783) leaves the division out, because it weighs up prompts
whose samples nearly agree. The standard deviation is the population's (divided by K).
"""

from __future__ import annotations

import numpy as np


def group_advantages(
    rewards: np.ndarray, mask: np.ndarray | None = None, *, normalize_std: bool = True, eps: float = 1e-6
) -> np.ndarray:
    """Advantages of G groups of K samples.

    `rewards` [G, K]; `mask` [G, K] bool, True where the sample counts. A masked sample enters neither the
    mean nor the deviation and gets 0, as does a sample left alone in its group. Returns float32 [G, K].
    Raises ValueError on other shapes, or where a reward that counts is not finite.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    if rewards.ndim != 2:
        raise ValueError(f"rewards must be [G, K], got shape {rewards.shape}")
    mask = np.ones(rewards.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if mask.shape != rewards.shape:
        raise ValueError(f"mask must have the rewards' shape {rewards.shape}, got {mask.shape}")
    if not np.isfinite(rewards[mask]).all():
        raise ValueError("a reward that is not masked is NaN or infinite; mask the sample or fix its reward")

    count_G1 = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    rewards = np.where(mask, rewards, 0.0)
    centred = np.where(mask, rewards - rewards.sum(axis=1, keepdims=True) / count_G1, 0.0)
    if normalize_std:
        centred /= np.sqrt((centred**2).sum(axis=1, keepdims=True) / count_G1) + eps
    return centred.astype(np.float32)
