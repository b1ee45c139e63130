"""Clip-Cov and KL-Cov: the tokens that lower the entropy of the policy most are held back.

A step of policy gradient lowers the entropy by the covariance of log-probability and advantage: a likely
token of a good answer becomes likelier still. This module knows whole batches alone, because the means are
over all tokens of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def clip_cov(
    logprobs: Sequence[np.ndarray],
    advantages: Sequence[np.ndarray],
    *,
    share: float,
    bounds: tuple[float, float],
) -> list[np.ndarray]:
    """Returns which tokens of a batch get no gradient: bool [T] for each of the B sequences.

    "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models", arXiv 2505.22617: with
    cov = (log-probability - its mean) (advantage - its mean) over the N tokens of the batch, share * N tokens
    (one at least) are drawn of those with cov strictly between the bounds. The authors' code has a share of
    2e-4, and 1 and 5 as bounds. The same batch gives the same draw.

    Args:
        logprobs: [B] of float [T], of the policy that sampled. The paper's are the current policy's, the same
            before the first update on the batch.
        advantages: [B] of float [T].
        share: share of the batch's tokens.
        bounds: covariances, in nats times advantage.
    """
    cov = _covariances(logprobs, advantages)
    eligible = np.flatnonzero((cov > bounds[0]) & (cov < bounds[1]))
    return _rows(np.random.default_rng(0).permutation(eligible)[: _count(share, cov)], logprobs)


def kl_cov(
    logprobs: Sequence[np.ndarray], advantages: Sequence[np.ndarray], *, share: float
) -> list[np.ndarray]:
    """Returns which tokens of a batch are held near the old policy: bool [T] for each of the B sequences.

    The same paper's KL-Cov: the share * N tokens (one at least) of the highest cov, which get
    coef * |log(policy / old policy)| added to their loss (`rlcore.algorithms.loss`, as in the authors' code).
    `clip_cov` describes the arguments.
    """
    cov = _covariances(logprobs, advantages)
    return _rows(np.argsort(-cov, kind="stable")[: _count(share, cov)], logprobs)


def _covariances(logprobs: Sequence[np.ndarray], advantages: Sequence[np.ndarray]) -> np.ndarray:
    """The centred products [N] of all tokens; empty for a batch without a token."""
    assert [len(row) for row in logprobs] == [len(row) for row in advantages]
    if not sum(map(len, logprobs)):
        return np.zeros(0)
    flat = [np.concatenate(rows).astype(np.float64) for rows in (logprobs, advantages)]
    return (flat[0] - flat[0].mean()) * (flat[1] - flat[1].mean())


def _count(share: float, cov: np.ndarray) -> int:
    return max(int(share * len(cov)), 1)


def _rows(indices: np.ndarray, like: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Bool [T] for each sequence, True at these indices of all tokens one after the other."""
    lengths = [len(row) for row in like]
    chosen = np.zeros(sum(lengths), dtype=bool)
    chosen[indices] = True
    return np.split(chosen, np.cumsum(lengths)[:-1]) if lengths else []
