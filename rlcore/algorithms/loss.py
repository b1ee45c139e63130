"""The policy loss: surrogate, KL penalty and entropy bonus, summed so that shards and micro-batches add up.

    loss = aggregate(w * surrogate) + kl_coef * aggregate(v * KL) - entropy_coef * aggregate(entropy)

The surrogate is one of `surrogate.py`, its correction weight w one of `importance.py`, KL one of `kl.py`
(GRPO's penalty inside the loss, arXiv 2402.03300, equation 3) and the aggregation one of `aggregation.py`.
The KL is the policy's, and the tokens are another's where weights have moved since: the detached ratio
v = policy / behaviour, held below the correction's upper bound, makes up for that (1 on policy).
Every sum is divided by totals of the *global* batch: the loss of a batch is the sum of the losses of its
parts, however the batch is cut. This module does not import torch, so that the configuration can build
`LossSettings` and stay light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlcore.algorithms.aggregation import Aggregation, BatchTotals
from rlcore.algorithms.importance import (
    Bounds,
    Correction,
    CorrectionRule,
    off_policy_mask,
    truncated_ratios,
)
from rlcore.algorithms.kl import KLEstimator
from rlcore.algorithms.surrogate import Clip, Surrogate

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """Loss settings say which functions a policy loss is made of, and with which constants."""

    surrogate: Surrogate
    """Function that gives the loss of each token."""
    clip: Clip
    """Bounds of the surrogate's ratio."""
    correction: CorrectionRule
    """Function that weighs in what rollout engine and learner compute differently."""
    bounds: Bounds
    """Bounds of the correction's ratio."""
    off_policy_threshold: float | None
    """Mean log(rollout / policy) above which a sequence's tokens with a negative advantage are left out of
    the surrogate; None leaves none out."""
    aggregation: Aggregation
    """Function that sums up the values of tokens."""
    kl_estimator: KLEstimator
    """Function that estimates the KL of each token to the reference."""
    kl_coef: float
    """Factor on the KL in the loss; with 0 the KL is only measured."""
    entropy_coef: float
    """Factor on the entropy bonus; with 0 there is none."""
    kl_cov_coef: float
    """Factor on |log(policy / old policy)| of the tokens that KL-Cov holds back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInputs:
    """Loss inputs are some sequences of a batch as padded tensors.

    What stands where `mask` is False is never read, NaN included.
    """

    logprobs: torch.Tensor
    """Log-probabilities [B, T] of the policy, with gradient."""
    behaviour_logprobs: torch.Tensor
    """Log-probabilities [B, T] of the engine that sampled."""
    advantages: torch.Tensor
    """Advantages [B] of sequences, or [B, T] of tokens."""
    mask: torch.Tensor
    """Bool [B, T], True on completion tokens."""
    old_logprobs: torch.Tensor | None = None
    """The learner's own log-probabilities [B, T] before the first update on this batch, from which the
    surrogate's ratio starts; None starts from the behaviour policy's."""
    reference_logprobs: torch.Tensor | None = None
    """Log-probabilities [B, T] of the reference; where they are given a KL is measured, whatever
    `kl_coef`."""
    entropies: torch.Tensor | None = None
    """Entropies [B, T] of the policy in nats, with gradient where `entropy_coef` is above 0."""
    held_back: torch.Tensor | None = None
    """Bool [B, T], True on tokens that KL-Cov holds near the old policy; None holds back none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """A policy loss is the loss of a part of the batch, with sums over the part's tokens for the metrics."""

    loss: torch.Tensor
    """Differentiable scalar [], whose sum over all parts is the loss of the global batch."""
    policy_loss: torch.Tensor
    """Detached scalar []: the surrogate's share of `loss`."""
    num_tokens: torch.Tensor
    """Completion tokens of this part, a scalar []."""
    kl_sum: torch.Tensor
    """KL to the reference summed over tokens, a scalar []; 0 without a reference."""
    clipped_sum: torch.Tensor
    """Number of tokens on which the clipping took hold, a scalar []."""
    bounded_sum: torch.Tensor
    """Number of tokens whose correction weight was truncated or masked, a scalar []."""
    off_policy_sum: torch.Tensor
    """Number of tokens that `off_policy_threshold` left out, a scalar []."""
    ratio_sum: torch.Tensor
    """Ratio of old to behaviour policy before any bound, summed over tokens, a scalar []."""
    ratio_max: torch.Tensor
    """Largest ratio of old to behaviour policy, a scalar []; 0 for a part without a token."""


def policy_loss(inputs: LossInputs, totals: BatchTotals, settings: LossSettings) -> PolicyLoss:
    """Returns the loss and the metric sums of some sequences of the batch.

    The surrogate's ratio starts from `inputs.old_logprobs`, and `settings.correction` weighs in what the
    engines compute differently. Without them the ratio is to the behaviour policy, and holds both in one.

    Raises:
        ValueError: a function of the settings returns something else than its kind must (a surrogate, a
            correction, an aggregation or a KL estimator of your own).
    """
    mask = inputs.mask
    # Padding is replaced before any arithmetic: 0 * NaN would poison the gradient.
    logprobs = inputs.logprobs.masked_fill(~mask, 0.0)
    behaviour = inputs.behaviour_logprobs.masked_fill(~mask, 0.0)
    old = behaviour if inputs.old_logprobs is None else inputs.old_logprobs.masked_fill(~mask, 0.0)

    def mean(values: torch.Tensor) -> torch.Tensor:
        share = settings.aggregation(values.masked_fill(~mask, 0.0), mask, totals)
        _check(share, (), "algorithm.loss_aggregation")
        return share

    advantages = _of_tokens(inputs.advantages, mask)
    pair = settings.surrogate(logprobs, old, advantages, mask, settings.clip)
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise ValueError(f"algorithm.loss: must return (losses, clipped), got {type(pair).__name__}")
    losses, clipped = pair
    _check(losses, mask.shape, "algorithm.loss (losses)")
    _check(clipped, mask.shape, "algorithm.loss (clipped)", is_bool=True)
    if inputs.held_back is not None:
        losses = losses + settings.kl_cov_coef * (logprobs - old).abs() * inputs.held_back
    corrected = settings.correction((old - behaviour).detach(), mask, settings.bounds)
    if not isinstance(corrected, Correction):
        raise ValueError(f"algorithm.correction: must return a Correction, got {type(corrected).__name__}")
    _check(corrected.weights, mask.shape, "algorithm.correction (weights)")
    log_ratios = (logprobs - behaviour).detach()
    left_out = mask.new_zeros(mask.shape)
    if settings.off_policy_threshold is not None:
        left_out = off_policy_mask(log_ratios, advantages, mask, settings.off_policy_threshold)
    policy_share = mean((corrected.weights * losses).masked_fill(left_out, 0.0))
    loss, kl_sum = policy_share, logprobs.new_zeros(())
    if inputs.reference_logprobs is not None:
        kl = settings.kl_estimator(logprobs, inputs.reference_logprobs.masked_fill(~mask, 0.0))
        _check(kl, mask.shape, "algorithm.kl_estimator")
        kl_sum = kl.detach().masked_fill(~mask, 0.0).sum()
        if settings.kl_coef:
            of_policy = truncated_ratios(log_ratios, settings.bounds)
            loss = loss + settings.kl_coef * mean(of_policy * kl)
    if settings.entropy_coef:
        assert inputs.entropies is not None, "an entropy bonus needs the entropies"
        loss = loss - settings.entropy_coef * mean(inputs.entropies)

    ratios = corrected.ratios.masked_fill(~mask, 0.0)
    return PolicyLoss(
        loss=loss,
        policy_loss=policy_share.detach(),
        num_tokens=mask.sum(),
        kl_sum=kl_sum,
        clipped_sum=(clipped & mask).sum(),
        bounded_sum=(corrected.bounded & mask).sum(),
        off_policy_sum=(left_out & mask).sum(),
        ratio_sum=ratios.sum(),
        ratio_max=ratios.max() if ratios.numel() else ratios.new_zeros(()),
    )


def _check(found: object, shape: tuple[int, ...], key: str, *, is_bool: bool = False) -> None:
    """Raises ValueError where a function of the user's returned no tensor of this shape: another would be
    broadcast without a word."""
    got = getattr(found, "shape", None)
    if got is None or not hasattr(found, "detach"):
        raise ValueError(f"{key}: must return a tensor {tuple(shape)}, got {type(found).__name__}")
    if tuple(got) != tuple(shape):
        raise ValueError(f"{key}: must return a tensor {tuple(shape)}, got {tuple(got)}")
    dtype = str(getattr(found, "dtype", ""))
    if is_bool and dtype != "torch.bool":
        raise ValueError(f"{key}: must return booleans, got {dtype}")


def _of_tokens(advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Returns advantages of sequences [B] or of tokens [B, T] as [B, T]."""
    assert advantages.shape in (mask.shape[:1], mask.shape), (advantages.shape, mask.shape)
    return (advantages.unsqueeze(-1) if advantages.ndim == 1 else advantages).expand_as(mask)
