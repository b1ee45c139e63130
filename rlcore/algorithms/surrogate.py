"""Surrogate objectives: the loss of each token, whose gradient is the policy gradient while the policy stays
near the one that it started the update from.

This module knows neither who computed the log-probabilities nor how the losses of tokens are summed. It does
not import torch, so that the configuration can read `SURROGATES` and stay light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rlcore.algorithms.kl import MAX_LOG_RATIO

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip bounds the ratio of the policy to the old policy."""

    low: float
    """Ratios below 1 - low are clipped; 1 sets no lower bound."""
    high: float
    """Ratios above 1 + high are clipped."""
    dual: float | None = None
    """Factor above 1 that bounds the loss of a token with a negative advantage; null sets no bound."""
    gate: tuple[float, float] | None = None
    """Temperatures of the gate of `sapo`: where the advantage is above 0, and elsewhere."""


class Surrogate(Protocol):
    """A surrogate is a function from log-probabilities and advantages to the loss of each token.

    The arguments are `logprobs` [B, T] with gradient, `old_logprobs` [B, T], `advantages` [B, T], `mask` [B,
    T] bool and the `Clip`. Both log-probabilities are 0 where the mask is False. The function returns the
    loss [B, T], and a bool [B, T] that is True where the clipping took hold. What it returns where the mask
    is False is not used.
    """

    def __call__(
        self,
        logprobs: torch.Tensor,
        old_logprobs: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        clip: Clip,
        /,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


def ppo(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    clip: Clip,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns -min(ratio A, clip(ratio) A): PPO, arXiv 1707.06347, equation 7.

    The ratio is bounded by 1 - clip.low and 1 + clip.high (DAPO's separate bounds, arXiv 2503.14476, equation
    10). `clip.dual` c bounds the loss of a bad sample by -c A as well (arXiv 1912.09729): without that bound,
    a token that became far likelier gives an unbounded gradient.
    """
    loss, clipped = _clipped(_ratio(logprobs - old_logprobs), advantages, clip)
    if clip.dual is not None:
        ceiling = -advantages * clip.dual
        beyond = (advantages < 0) & (loss > ceiling)
        loss, clipped = ceiling.where(beyond, loss), clipped | beyond
    return loss, clipped


def gspo(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    clip: Clip,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns -min(s A, clip(s) A) with the sequence's ratio s = (policy(y) / old(y))^(1 / |y|): GSPO, arXiv
    2507.18071, equations 5 to 7. A sequence is clipped as a whole; `clip.dual` is not used.

    The form is GSPO-token (section 4.3): every token's ratio has the value of s and its own gradient. Where a
    sequence has one advantage and the aggregation is `sequence`, the sum is GSPO's in value and gradient. The
    bounds are orders of magnitude tighter than PPO's (3e-4 and 4e-4 in the paper), as s is a geometric mean.
    """
    length_B1 = mask.sum(dim=-1, keepdim=True).clamp(min=1)
    mean_B1 = (logprobs - old_logprobs).sum(dim=-1, keepdim=True) / length_B1
    ratio = _ratio(mean_B1).detach() * (logprobs - logprobs.detach()).exp()
    return _clipped(ratio, advantages, clip)


def cispo(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    clip: Clip,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns -stop_gradient(clip(ratio)) A log policy: CISPO, MiniMax-M1, arXiv 2506.13585, equations 4, 5.

    The weight is clipped, and no token loses its gradient. The paper sets no lower bound: clip.low = 1.
    `clip.dual` is not used.
    """
    ratio = _ratio(logprobs - old_logprobs).detach()
    weight = ratio.clamp(1.0 - clip.low, 1.0 + clip.high)
    return -weight * advantages * logprobs, weight != ratio


def sapo(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    clip: Clip,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns -(4 / t) sigmoid(t (ratio - 1)) A: SAPO, "Soft Adaptive Policy Optimization", arXiv 2511.20347.

    The temperature t is `clip.gate[0]` where the advantage is above 0 and `clip.gate[1]` elsewhere. The
    gradient is the policy gradient's at ratio 1, and fades on both sides of it, faster for a higher
    temperature; no token loses it at once. Towards t = 0 it is that of ratio A without bounds. What counts as
    clipped is a token that keeps less than half of that. `clip.low`, `high` and `dual` are not used.
    """
    assert clip.gate is not None, "sapo needs the temperatures of its gate"
    above, elsewhere = (advantages.new_tensor(temperature) for temperature in clip.gate)
    temperature = above.where(advantages > 0, elsewhere)
    gate = (temperature * (_ratio(logprobs - old_logprobs) - 1.0)).sigmoid()
    kept = 4.0 * (gate * (1.0 - gate)).detach()
    return -4.0 / temperature * gate * advantages, kept < 0.5


SURROGATES: dict[str, Surrogate] = {"ppo": ppo, "gspo": gspo, "cispo": cispo, "sapo": sapo}
"""The surrogates by their names in `algorithm.loss`."""


def _ratio(log_ratio: torch.Tensor) -> torch.Tensor:
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def _clipped(ratio: torch.Tensor, advantages: torch.Tensor, clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
    free = -advantages * ratio
    bounded = -advantages * ratio.clamp(1.0 - clip.low, 1.0 + clip.high)
    return free.maximum(bounded), bounded > free
