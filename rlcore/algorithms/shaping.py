"""Penalties that the settings take off a reward: the KL of its sequence, and a penalty on over-long
completions.

This module knows arrays alone: neither groups nor the configuration.
"""

from __future__ import annotations

import numpy as np
import torch

from rlcore.algorithms.kl import KLEstimator


def sequence_kl(logprobs: np.ndarray, reference_logprobs: np.ndarray, estimator: KLEstimator) -> float:
    """Returns the KL of a whole sequence in nats, for a penalty in its reward.

    Both arguments are [T]. The estimates of tokens are summed, because the log-probability of a sequence is
    the sum of its tokens' log-probabilities.
    """
    pair = [torch.as_tensor(np.asarray(x, dtype=np.float64)) for x in (logprobs, reference_logprobs)]
    of_tokens = estimator(*pair)
    shape, got = tuple(pair[0].shape), tuple(of_tokens.shape)
    if got != shape:
        raise ValueError(f"algorithm.kl_estimator: must return a tensor {shape}, got {got}")
    return float(of_tokens.sum())


def overlong_penalty(lengths: np.ndarray, max_tokens: int | np.ndarray, buffer: int) -> np.ndarray:
    """Returns the soft over-long punishment of DAPO, arXiv 2503.14476, equation 13, in [-1, 0].

    The penalty is 0 up to max_tokens - buffer tokens, and falls in a line from there to -1 at max_tokens.
    `lengths` [...] counts tokens; `max_tokens` may be an array that broadcasts. Returns float64 [...].
    """
    over = np.asarray(lengths, dtype=np.float64) - (max_tokens - buffer)
    return -np.clip(over / buffer, 0.0, 1.0)
