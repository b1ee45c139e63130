"""Correction between two engines that should agree and do not quite.

The rollout engine samples with its own kernels and dtypes; the learner recomputes the log-probabilities of
the same tokens with the same weights and finds others. Where the learner's are the old log-probabilities of
the surrogate, the samples are still the rollout's. A detached weight learner / rollout makes up for that, and
is bounded because its variance is not.

A rule weighs the surrogate alone, and so does `off_policy_mask`, which goes with any rule; the KL has a
ratio of its own (`loss.py`), the entropy none. The totals that the loss is divided by stay the whole batch's,
masked tokens included. This module does not import torch, so that the configuration can read `CORRECTIONS`
and stay light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rlcore.algorithms.kl import MAX_LOG_RATIO

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds limit the ratio learner / rollout."""

    low: float
    """Ratios below this are masked by `icepop`, `sequence_icepop` and `geometric_mask`."""
    high: float
    """Ratios above this are masked by `icepop`, `sequence_icepop` and `geometric_mask`, and held there by
    `tis` and `sequence_tis`, and for the KL in the loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A correction holds the weights of the surrogate's tokens. All tensors are detached."""

    weights: torch.Tensor
    """Factors [B, T] on the surrogate's loss."""
    ratios: torch.Tensor
    """Ratios learner / rollout [B, T] before any bound; a sequence's ratio stands on each of its tokens."""
    bounded: torch.Tensor
    """Bool [B, T], True where a ratio was truncated or masked."""


class CorrectionRule(Protocol):
    """A correction rule is a function from log ratios to weights of the surrogate's tokens.

    The arguments are `log_ratios` [B, T], the detached log(learner / rollout) that is 0 where the mask is
    False, `mask` [B, T] bool and the `Bounds`. What the function returns where the mask is False is not used.
    """

    def __call__(self, log_ratios: torch.Tensor, mask: torch.Tensor, bounds: Bounds, /) -> Correction: ...


def none(log_ratios: torch.Tensor, mask: torch.Tensor, bounds: Bounds) -> Correction:
    """Returns weights of 1; the ratios are measured all the same."""
    ratios = _ratios(log_ratios)
    return Correction(
        weights=ratios.new_ones(ratios.shape), ratios=ratios, bounded=mask.new_zeros(mask.shape)
    )


def tis(log_ratios: torch.Tensor, mask: torch.Tensor, bounds: Bounds) -> Correction:
    """Returns min(ratio, high) of each token: truncated importance sampling (Ionides 2008; Yao et al., "Your
    Efficient RL Framework Secretly Brings You Off-Policy RL Training", 2025, with high = 2)."""
    ratios = _ratios(log_ratios)
    weights = truncated_ratios(log_ratios, bounds)
    return Correction(weights=weights, ratios=ratios, bounded=ratios > bounds.high)


def icepop(log_ratios: torch.Tensor, mask: torch.Tensor, bounds: Bounds) -> Correction:
    """Returns the ratio of each token where it lies in [low, high], else 0: IcePop, Ring-1T, arXiv
    2510.18855, with 0.5 and 5. A token on which the engines disagree teaches nothing."""
    ratios = _ratios(log_ratios)
    bounded = (ratios < bounds.low) | (ratios > bounds.high)
    return Correction(weights=ratios.masked_fill(bounded, 0.0), ratios=ratios, bounded=bounded)


def sequence_tis(log_ratios: torch.Tensor, mask: torch.Tensor, bounds: Bounds) -> Correction:
    """Returns `tis` of the whole sequence's ratio, the product of its tokens' ratios (Liu, Li et al., "When
    Speed Kills Stability", 2025). The weight is unbiased but for the bound, and noisier for longer
    sequences."""
    return tis(_of_sequence(log_ratios), mask, bounds)


def sequence_icepop(log_ratios: torch.Tensor, mask: torch.Tensor, bounds: Bounds) -> Correction:
    """Returns `icepop` of the whole sequence's ratio, the product of its tokens' ratios (see
    `sequence_tis`)."""
    return icepop(_of_sequence(log_ratios), mask, bounds)


def geometric_mask(log_ratios: torch.Tensor, mask: torch.Tensor, bounds: Bounds) -> Correction:
    """Returns 1 on the tokens of a sequence whose geometric mean ratio lies in [low, high], else 0: geometric
    sequence masking (Liu, Li et al., "When Speed Kills Stability", 2025; verl's `rollout_rs: geometric`, with
    bounds of about 0.999 and 1.001).

    Unlike the product of `sequence_icepop`, the mean does not grow with the length of the sequence. It only
    decides what is left out: it is no ratio of probabilities to weigh by.
    """
    mean_B1 = _mean_of_sequence(log_ratios, mask)
    ratios = _ratios(mean_B1.expand_as(log_ratios))
    bounded = (ratios < bounds.low) | (ratios > bounds.high)
    weights = ratios.new_ones(ratios.shape).masked_fill(bounded, 0.0)
    return Correction(weights=weights, ratios=ratios, bounded=bounded)


CORRECTIONS: dict[str, CorrectionRule] = {
    "none": none,
    "tis": tis,
    "icepop": icepop,
    "sequence_tis": sequence_tis,
    "sequence_icepop": sequence_icepop,
    "geometric_mask": geometric_mask,
}
"""The correction rules by their names in `algorithm.correction`."""


def truncated_ratios(log_ratios: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    """Returns min(ratio, high) of each token, of the shape of `log_ratios`."""
    return _ratios(log_ratios).clamp(max=bounds.high)


def off_policy_mask(
    log_ratios: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, threshold: float
) -> torch.Tensor:
    """Returns bool [B, T], True on tokens whose surrogate is to be left out: those with an advantage below 0
    in sequences that the policy has left.

    DeepSeek-V3.2, arXiv 2512.02556, "Off-Policy Sequence Masking": the mean of log(rollout / policy) over a
    sequence's tokens is above `threshold`. The rollout's log-probabilities are the engine's, so the mean
    holds both what the weights moved and what the engines compute differently.

    Args:
        log_ratios: log(policy / rollout) [B, T], detached, 0 where the mask is False.
        advantages: [B, T].
        mask: bool [B, T].
        threshold: in nats per token, above 0.
    """
    return (advantages < 0) & (-_mean_of_sequence(log_ratios, mask) > threshold)


def _ratios(log_ratios: torch.Tensor) -> torch.Tensor:
    return log_ratios.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def _of_sequence(log_ratios: torch.Tensor) -> torch.Tensor:
    return log_ratios.sum(dim=-1, keepdim=True).expand_as(log_ratios)


def _mean_of_sequence(log_ratios: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return log_ratios.sum(dim=-1, keepdim=True) / mask.sum(dim=-1, keepdim=True).clamp(min=1)
