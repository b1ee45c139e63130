"""Clip-Cov: some of the tokens that lower the entropy of the policy most get no gradient.

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
    assert [len(row) for row in logprobs] == [len(row) for row in advantages]
    lengths = [len(row) for row in logprobs]
    if not sum(lengths):
        return [np.zeros(0, dtype=bool) for _ in lengths]
    flat_logprobs, flat_advantages = (
        np.concatenate(rows).astype(np.float64) for rows in (logprobs, advantages)
    )
    cov = (flat_logprobs - flat_logprobs.mean()) * (flat_advantages - flat_advantages.mean())
    eligible = np.flatnonzero((cov > bounds[0]) & (cov < bounds[1]))
    num_drawn = min(max(int(share * len(cov)), 1), len(eligible))
    drawn = np.zeros(len(cov), dtype=bool)
    drawn[np.random.default_rng(0).permutation(eligible)[:num_drawn]] = True
    return np.split(drawn, np.cumsum(lengths)[:-1])
