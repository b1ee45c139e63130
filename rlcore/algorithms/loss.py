"""The policy loss: surrogate, KL penalty and entropy bonus, summed so that shards and micro-batches add up.

    loss = aggregate(w * surrogate) + kl_coef * aggregate(KL) - entropy_coef * aggregate(entropy)

The surrogate is one of `surrogate.py`, its correction weight w one of `importance.py`, KL one of `kl.py`
(GRPO's penalty inside the loss, arXiv 2402.03300, equation 3). Every sum is divided by totals of the
*global* batch, which the caller passes in: the loss of a batch is the sum of the losses of its parts, however
it is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from rlcore.algorithms.importance import Correction, importance_correction
from rlcore.algorithms.kl import KL_ESTIMATORS
from rlcore.algorithms.surrogate import SURROGATES, cispo, clipped_surrogate, gspo

AGGREGATIONS = ("token", "sequence", "constant")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """The loss of a part of the batch, and sums over its completion tokens for the metrics."""

    loss: torch.Tensor
    """[] differentiable; its sum over all parts is the loss of the global batch."""
    policy_loss: torch.Tensor
    """[] detached: the surrogate's share of `loss`."""
    num_tokens: torch.Tensor
    """[] completion tokens of this part."""
    kl_sum: torch.Tensor
    """[] KL to the reference, summed over tokens; 0 without a reference."""
    clipped_sum: torch.Tensor
    """[] tokens on which the clipping took hold."""
    bounded_sum: torch.Tensor
    """[] tokens whose correction weight was truncated or masked."""
    ratio_sum: torch.Tensor
    """[] ratio of old to behaviour policy, before any bound, summed over tokens."""
    ratio_max: torch.Tensor
    """[] the largest of them."""


def aggregate(
    values: torch.Tensor,
    mask: torch.Tensor,
    aggregation: str,
    *,
    num_tokens: int,
    num_sequences: int,
    max_tokens: int | None = None,
) -> torch.Tensor:
    """This part's share of the global batch's mean.

    `values` [B, T]; `mask` [B, T] bool. `token`: mean over all completion tokens (DAPO, arXiv 2503.14476,
    equation 12); `sequence`: mean over sequences of each one's mean (GRPO; an empty sequence counts as 0);
    `constant`: sum over num_sequences * max_tokens, so that no sequence's length changes its weight (Dr.
    GRPO, arXiv 2503.20783). `num_tokens` and `num_sequences` are global totals, and `max_tokens` is the
    longest completion allowed. A batch without tokens gives 0.
    """
    sums_B = values.masked_fill(~mask, 0.0).sum(dim=-1)
    if aggregation == "token":
        return sums_B.sum() / max(num_tokens, 1)
    if aggregation == "sequence":
        return (sums_B / mask.sum(dim=-1).clamp(min=1)).sum() / max(num_sequences, 1)
    if aggregation == "constant":
        if max_tokens is None:
            raise ValueError("loss aggregation `constant` needs max_tokens")
        return sums_B.sum() / max(num_sequences * max_tokens, 1)
    raise ValueError(f"loss aggregation must be one of {AGGREGATIONS}, got {aggregation!r}")


def policy_loss(
    logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    num_tokens: int,
    num_sequences: int,
    max_tokens: int | None = None,
    aggregation: str = "token",
    surrogate: str = "ppo",
    clip_low: float,
    clip_high: float,
    clip_dual: float | None = None,
    old_logprobs: torch.Tensor | None = None,
    correction: str = "none",
    correction_low: float = 0.0,
    correction_high: float = float("inf"),
    reference_logprobs: torch.Tensor | None = None,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3",
    entropies: torch.Tensor | None = None,
    entropy_coef: float = 0.0,
) -> PolicyLoss:
    """Loss and metric sums of some sequences of the batch.

    `logprobs` [B, T] of the policy, with gradient; `behaviour_logprobs` [B, T] of the engine that sampled;
    `advantages` [B] or [B, T]; `mask` [B, T] bool, True on completion tokens. `old_logprobs` [B, T]: the
    learner's own before the first update on this batch, where the surrogate's ratio starts from those;
    `correction` then weighs in what the engines compute differently. Without them the ratio is to the
    behaviour policy, which holds both in one. `reference_logprobs` [B, T] or None; a KL is measured where
    they are given, whatever `kl_coef`. `entropies` [B, T], with gradient where `entropy_coef` is above 0.
    What stands under a False of the mask is never read, NaN included.
    """
    # Padding is replaced before any arithmetic: 0 * NaN would poison the gradient.
    logprobs = logprobs.masked_fill(~mask, 0.0)
    behaviour = behaviour_logprobs.masked_fill(~mask, 0.0)
    old = behaviour if old_logprobs is None else old_logprobs.masked_fill(~mask, 0.0)

    mean = partial(
        aggregate,
        mask=mask,
        aggregation=aggregation,
        num_tokens=num_tokens,
        num_sequences=num_sequences,
        max_tokens=max_tokens,
    )

    losses, clipped = _surrogate(surrogate, logprobs, old, advantages, mask, clip_low, clip_high, clip_dual)
    corrected = importance_correction(
        old, behaviour, mask, correction=correction, low=correction_low, high=correction_high
    )
    policy_share = mean(losses if correction == "none" else corrected.weights * losses)
    loss, kl_sum = policy_share, logprobs.new_zeros(())
    if reference_logprobs is not None:
        kl = KL_ESTIMATORS[kl_estimator](logprobs, reference_logprobs.masked_fill(~mask, 0.0))
        kl_sum = kl.detach().sum()
        if kl_coef:
            loss = loss + kl_coef * mean(kl)
    if entropy_coef:
        assert entropies is not None, "an entropy bonus needs the entropies"
        loss = loss - entropy_coef * mean(entropies)

    return PolicyLoss(
        loss=loss,
        policy_loss=policy_share.detach(),
        num_tokens=mask.sum(),
        kl_sum=kl_sum,
        clipped_sum=(clipped & mask).sum(),
        **_correction_sums(mask, corrected),
    )


def _surrogate(
    name: str,
    logprobs: torch.Tensor,
    old: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    clip_low: float,
    clip_high: float,
    clip_dual: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss [B, T] and clipped [B, T] of the named surrogate."""
    if name == "ppo":
        return clipped_surrogate(logprobs, old, advantages, clip_low, clip_high, clip_dual)
    if name == "gspo":
        return gspo(logprobs, old, advantages, mask, clip_low, clip_high)
    if name == "cispo":
        return cispo(logprobs, old, advantages, clip_low, clip_high)
    raise ValueError(f"algorithm.loss must be one of {SURROGATES}, got {name!r}")


def _correction_sums(mask: torch.Tensor, corrected: Correction) -> dict[str, torch.Tensor]:
    """A part without a token has a maximum of 0."""
    ratios = corrected.ratios.masked_fill(~mask, 0.0)
    return {
        "bounded_sum": corrected.bounded.sum(),
        "ratio_sum": ratios.sum(),
        "ratio_max": ratios.max() if ratios.numel() else ratios.new_zeros(()),
    }
