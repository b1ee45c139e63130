"""Correction between two engines that should agree and do not quite.

The rollout engine samples with its own kernels and dtypes; the learner recomputes the logprobs of the same
tokens with the same weights and finds others. Where the learner's are the old logprobs of the surrogate, the
samples are still the rollout's: a detached weight learner / rollout makes up for it, bounded because its
variance is not.

    tis       min(ratio, high) of each token: truncated importance sampling (Ionides 2008; Yao et al., "Your
              Efficient RL Framework Secretly Brings You Off-Policy RL Training", 2025, with high = 2)
    icepop    the ratio of each token where it lies in [low, high], else 0 (IcePop, Ring-1T, arXiv 2510.18855,
              with 0.5 and 5): a token on which the engines disagree teaches nothing
    sequence_tis, sequence_icepop
              the same with the ratio of the whole sequence, the product of its tokens' (Liu, Li et al.,
              "When Speed Kills Stability", 2025): unbiased but for the bound, and noisier the longer it is

Only the surrogate is weighted; KL and entropy are not. The totals that the loss is divided by stay the whole
batch's, masked tokens included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rlcore.algorithms.kl import MAX_LOG_RATIO

CORRECTIONS = ("none", "tis", "icepop", "sequence_tis", "sequence_icepop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Weights for the surrogate's tokens; all detached."""

    weights: torch.Tensor
    """[B, T]"""
    ratios: torch.Tensor
    """[B, T] learner / rollout before any bound; a sequence's on each of its tokens."""
    bounded: torch.Tensor
    """[B, T] bool: truncated or masked."""


def importance_correction(
    old_logprobs: torch.Tensor,
    rollout_logprobs: torch.Tensor,
    mask: torch.Tensor,
    *,
    correction: str,
    low: float,
    high: float,
) -> Correction:
    """All [B, T], the logprobs 0 where `mask` is False. `low` is used by the masking variants alone.

    Raises ValueError where `correction` is none of `CORRECTIONS`.
    """
    if correction not in CORRECTIONS:
        raise ValueError(f"algorithm.correction must be one of {CORRECTIONS}, got {correction!r}")
    difference = (old_logprobs - rollout_logprobs).detach()
    if correction.startswith("sequence"):
        difference = difference.sum(dim=-1, keepdim=True).expand_as(difference)
    ratios = difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    if correction == "none":
        weights, bounded = torch.ones_like(ratios), torch.zeros_like(mask)
    elif correction.endswith("tis"):
        weights, bounded = ratios.clamp(max=high), ratios > high
    else:
        bounded = (ratios < low) | (ratios > high)
        weights = ratios.masked_fill(bounded, 0.0)
    return Correction(weights=weights, ratios=ratios, bounded=bounded & mask)
