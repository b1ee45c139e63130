"""Surrogate objectives: the loss of each token, whose gradient is the policy gradient while the policy stays
near the one that it started the update from.

Each takes `logprobs` [B, T] with gradient, `old_logprobs` [B, T], `advantages` [B] (one a sequence) or
[B, T], and `mask` [B, T] bool, with both logprobs 0 where the mask is False, and returns the loss [B, T] and
where the clipping took hold [B, T] bool. Ratios are policy / old policy.
"""

from __future__ import annotations

import torch

from rlcore.algorithms.kl import MAX_LOG_RATIO

SURROGATES = ("ppo", "gspo", "cispo")


def clipped_surrogate(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    clip_low: float,
    clip_high: float,
    clip_dual: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """-min(ratio A, clip(ratio) A): PPO, arXiv 1707.06347, equation 7, the ratio bounded by 1 - clip_low and
    1 + clip_high (DAPO's separate bounds, arXiv 2503.14476, equation 10).

    `clip_dual` c > 1 bounds the loss of a bad sample by -c A as well (arXiv 1912.09729): without
    it, a token that became far likelier than it was gives an unbounded gradient.
    """
    assert logprobs.shape == old_logprobs.shape
    assert advantages.shape in (logprobs.shape[:1], logprobs.shape), (advantages.shape, logprobs.shape)
    return _clip(_ratio(logprobs - old_logprobs), advantages, clip_low, clip_high, clip_dual)


def gspo(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """-min(s A, clip(s) A) with the sequence's ratio s = (policy(y) / old(y))^(1 / |y|): GSPO, arXiv
    2507.18071, equations 5 to 7. A sequence is clipped as a whole.

    Written as GSPO-token (section 4.3): every token's ratio has the value of s and its own gradient. Where a
    sequence has one advantage and `sequence` aggregation, the sum is GSPO's in value and gradient. Its bounds
    are orders of magnitude tighter than PPO's (3e-4 and 4e-4 in the paper), as s is a geometric mean.
    """
    length_B1 = mask.sum(dim=-1, keepdim=True).clamp(min=1)
    mean_B1 = (logprobs - old_logprobs).sum(dim=-1, keepdim=True) / length_B1
    ratio = _ratio(mean_B1).detach() * (logprobs - logprobs.detach()).exp()
    return _clip(ratio, advantages, clip_low, clip_high, None)


def cispo(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """-stop_gradient(clip(ratio)) A log policy: CISPO, MiniMax-M1, arXiv 2506.13585, equations 4 and 5.

    The weight is clipped, and no token loses its gradient. The paper sets no lower bound: clip_low = 1.
    """
    ratio = _ratio(logprobs - old_logprobs).detach()
    weight = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return -weight * _of_tokens(advantages) * logprobs, weight != ratio


def _ratio(log_ratio: torch.Tensor) -> torch.Tensor:
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def _of_tokens(advantages: torch.Tensor) -> torch.Tensor:
    return advantages.unsqueeze(-1) if advantages.ndim == 1 else advantages


def _clip(
    ratio: torch.Tensor, advantages: torch.Tensor, low: float, high: float, dual: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    advantages = _of_tokens(advantages)
    free = -advantages * ratio
    bounded = -advantages * ratio.clamp(1.0 - low, 1.0 + high)
    loss, clipped = torch.maximum(free, bounded), bounded > free
    if dual is not None:
        ceiling = (-advantages * dual).expand_as(loss)
        beyond = (advantages < 0) & (loss > ceiling)
        loss, clipped = torch.where(beyond, ceiling, loss), clipped | beyond
    return loss, clipped
