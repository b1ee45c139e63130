"""The policy loss: clipped surrogate plus KL penalty, summed so that shards and micro-batches add up.

PPO's clipped objective (arXiv 1707.06347, equation 7) with separate bounds below and above (DAPO's
clip-higher, arXiv 2503.14476), and the k3 penalty of GRPO (arXiv 2402.03300, equation 3) inside the loss.
Every sum is divided by totals of the *global* batch, which the caller passes in: the loss of a batch is the
sum of the losses of its parts, however it is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rlcore.algorithms.kl import MAX_LOG_RATIO, kl_k3

AGGREGATIONS = ("token", "sequence")


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
    """[] k3 to the reference, summed over tokens; 0 without a reference."""
    clipped_sum: torch.Tensor
    """[] tokens whose gradient the clipping removed."""
    difference_sum: torch.Tensor
    """[] |logprob - behaviour logprob|, summed over tokens."""
    difference_max: torch.Tensor
    """[] the largest of them."""


def clipped_surrogate(
    logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative clipped surrogate of each token, and where the clipping took its gradient away.

    `logprobs`, `behaviour_logprobs` [B, T]; `advantages` [B], one a sequence. The ratio is bounded by
    1 - clip_low and 1 + clip_high. Returns loss [B, T] and clipped [B, T] bool.
    """
    assert logprobs.shape == behaviour_logprobs.shape and advantages.shape == logprobs.shape[:1]
    ratio = (logprobs - behaviour_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    advantages = advantages.unsqueeze(-1)
    free = -advantages * ratio
    bounded = -advantages * ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return torch.maximum(free, bounded), bounded > free


def aggregate(
    values: torch.Tensor, mask: torch.Tensor, aggregation: str, *, num_tokens: int, num_sequences: int
) -> torch.Tensor:
    """This part's share of the global batch's mean.

    `values` [B, T]; `mask` [B, T] bool. `token`: mean over all completion tokens; `sequence`: mean
    over sequences of each one's mean (an empty sequence counts as 0). `num_tokens` and `num_sequences` are
    global totals.
    """
    if aggregation == "token":
        return values.masked_fill(~mask, 0.0).sum() / num_tokens
    if aggregation == "sequence":
        length_B = mask.sum(dim=-1).clamp(min=1)
        return (values.masked_fill(~mask, 0.0).sum(dim=-1) / length_B).sum() / num_sequences
    raise ValueError(f"loss aggregation must be one of {AGGREGATIONS}, got {aggregation!r}")


def policy_loss(
    logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    num_tokens: int,
    num_sequences: int,
    clip_low: float,
    clip_high: float,
    aggregation: str = "token",
    reference_logprobs: torch.Tensor | None = None,
    kl_coef: float = 0.0,
) -> PolicyLoss:
    """Loss and metric sums of some sequences of the batch.

    `logprobs` [B, T] of the policy, with gradient; `behaviour_logprobs` [B, T] of the policy that sampled;
    `advantages` [B]; `mask` [B, T] bool, True on completion tokens; `reference_logprobs` [B, T] or None.
    What stands under a False of the mask is never read, NaN included.
    """
    # Padding is replaced before any arithmetic: 0 * NaN would poison the gradient.
    logprobs = logprobs.masked_fill(~mask, 0.0)
    behaviour_logprobs = behaviour_logprobs.masked_fill(~mask, 0.0)
    totals = {"num_tokens": num_tokens, "num_sequences": num_sequences}

    surrogate, clipped = clipped_surrogate(logprobs, behaviour_logprobs, advantages, clip_low, clip_high)
    policy_share = aggregate(surrogate, mask, aggregation, **totals)
    loss, kl_sum = policy_share, logprobs.new_zeros(())
    if reference_logprobs is not None:
        kl = kl_k3(logprobs, reference_logprobs.masked_fill(~mask, 0.0))
        kl_sum = kl.detach().sum()
        loss = loss + kl_coef * aggregate(kl, mask, aggregation, **totals)

    difference = (logprobs - behaviour_logprobs).detach().abs()
    return PolicyLoss(
        loss=loss,
        policy_loss=policy_share.detach(),
        num_tokens=mask.sum(),
        kl_sum=kl_sum,
        clipped_sum=(clipped & mask).sum(),
        difference_sum=difference.sum(),
        difference_max=difference.max() if difference.numel() else difference.new_zeros(()),
    )
