"""Losses of preferences: what pairs of answers, or single answers with a label, say about a policy.

A log ratio is log π(y | x) - log p(y | x) of a whole answer, with p the reference that the training began
from: a policy's implicit reward is beta times its log ratio. This module does not import torch, so that the
configuration can read it and stay light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def dpo(log_ratios: Tensor, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Returns -(1 - e) log sigmoid(h) - e log sigmoid(-h) of each pair, h = beta (chosen - rejected).

    Direct preference optimisation, arXiv 2305.18290, equation 7. e is `label_smoothing`, the share of pairs
    that are labelled the wrong way round (conservative DPO, Mitchell 2023).

    Args:
        log_ratios: [B, 2] of the chosen and the rejected answer.
    """
    margins = beta * (log_ratios[:, 0] - log_ratios[:, 1])
    return -(1 - label_smoothing) * _log_sigmoid(margins) - label_smoothing * _log_sigmoid(-margins)


def ipo(log_ratios: Tensor, *, beta: float) -> Tensor:
    """Returns (chosen - rejected - 1 / (2 beta))^2 of each pair: IPO, arXiv 2310.12036, equation 17.

    The margin has a goal that it does not pass, where DPO's has none: pairs that all agree do not drive the
    policy away from the reference for good. `log_ratios` are [B, 2], as those of `dpo`.
    """
    return (log_ratios[:, 0] - log_ratios[:, 1] - 1 / (2 * beta)) ** 2


def kto(
    log_ratios: Tensor,
    desirable: Tensor,
    kl: float,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Returns w (1 - sigmoid(h)) of each answer: Kahneman-Tversky optimisation, arXiv 2402.01306, equation 8.

    h is beta (log ratio - kl) for a desirable answer, and the negative of that for an undesirable one.

    Args:
        log_ratios: [B].
        desirable: bool [B].
        kl: the point of reference z0, by `kto_kl`; carries no gradient.
    """
    margins = kto_margins(log_ratios, desirable, kl, beta=beta)
    weights = desirable * desirable_weight + ~desirable * undesirable_weight
    return weights * (1 - margins.sigmoid())


def bradley_terry(rewards: Tensor) -> Tensor:
    """Returns -log sigmoid(chosen - rejected) of each pair: the likelihood of the preference under a reward
    model (Bradley and Terry 1952; arXiv 2203.02155, equation 1).

    Args:
        rewards: [B, 2] of the chosen and the rejected answer.
    """
    return -_log_sigmoid(rewards[:, 0] - rewards[:, 1])


def pointwise(rewards: Tensor, desirable: Tensor) -> Tensor:
    """Returns -log sigmoid(r) of a desirable answer, -log sigmoid(-r) of an undesirable one: the likelihood
    of the label under a reward model (cross-entropy; arXiv 2408.15240, equation 5).

    Args:
        rewards: [B].
        desirable: bool [B].
    """
    return -_log_sigmoid(rewards * (desirable * 2 - 1))


def kto_margins(log_ratios: Tensor, desirable: Tensor, kl: float, *, beta: float) -> Tensor:
    """Returns how far each answer [B] lies on the side of `kl` where it should, times beta."""
    return beta * (log_ratios - kl) * (desirable * 2 - 1)


def kto_kl(total: float, count: float) -> float:
    """Returns KTO's z0 = max(0, mean log ratio of answers to *other* prompts), arXiv 2402.01306, section 4.1.

    Args:
        total: sum of the log ratios of mismatched prompts and answers.
        count: their number; 0 gives 0.
    """
    return max(0.0, total / count) if count else 0.0


def _log_sigmoid(x: Tensor) -> Tensor:
    return -(-x).logaddexp(x.new_zeros(()))
