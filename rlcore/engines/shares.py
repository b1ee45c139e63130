"""The share of one micro-batch in the loss and the metrics of the global batch.

Every sum is over one micro-batch alone and every loss is divided by global totals, so that shares of all
micro-batches of all ranks add up to the loss of the batch. This module knows neither the model nor the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from rlcore.algorithms.aggregation import BatchTotals
from rlcore.algorithms.loss import LossInputs, PolicyLoss, policy_loss
from rlcore.config import AlgorithmConfig
from rlcore.engines.logprobs import CompletionLogprobs, TokenGroup
from rlcore.errors import DataError
from rlcore.types import TrainGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share is what one micro-batch adds to the loss and the metrics of the global batch."""

    loss: torch.Tensor
    """Differentiable scalar []."""
    sums: dict[str, torch.Tensor]
    """Detached scalars that add up over the batch; `loss` and `tokens` are among them."""
    maxima: dict[str, torch.Tensor]
    """Detached scalars of which the batch's is the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyObjective:
    """A policy objective is the policy loss of one global batch (`rlcore.algorithms.loss`).

    Each batch gets a new objective, because an objective remembers the learner's first log-probabilities.
    """

    totals: BatchTotals
    """Totals of the global batch."""
    algorithm: AlgorithmConfig
    """Section `algorithm` of the configuration."""
    temperature: float = 1.0
    """Temperature of the policy that sampled, and is trained: `rollout.temperature`."""
    recompute_logprobs: bool
    """True where the old log-probabilities are the learner's own. They cost no pass of their own: weights
    move only after all micro-batches, so the first update's forward gives them."""
    old_logprobs: dict[int, torch.Tensor] = field(default_factory=dict)
    """Old log-probabilities [B, T] by micro-batch, filled during the first update."""

    @property
    def entropy_grad(self) -> bool:
        """Returns True where `share` needs entropies with a gradient."""
        return self.algorithm.entropy_coef > 0

    def share(self, scored: CompletionLogprobs, groups: Sequence[TrainGroup], index: int) -> Share:
        """Returns what a micro-batch adds to the batch.

        Args:
            scored: log-probabilities and entropies of the completions of `groups`.
            groups: the micro-batch.
            index: the micro-batch's number, the same in every update on this batch.

        Raises:
            DataError: a KL is asked for and a group carries no reference log-probabilities.
        """
        scored = _sampled_alone(scored, groups)
        inputs = self._inputs(scored, groups, index)
        result = policy_loss(inputs, self.totals, self.algorithm.loss_settings)
        current = [
            row
            for group in groups
            for row in (group.is_current or [np.ones(len(tokens)) for tokens in group.token_ids])
        ]
        device, length = scored.logprobs.device, scored.logprobs.shape[1]
        is_current = _pad(current, length).to(device).bool() & scored.mask
        differences = (scored.logprobs.detach() - inputs.behaviour_logprobs).abs()
        differences = differences.masked_fill(~scored.mask, 0.0)
        share = self._share(result, scored.entropies)
        share.sums["logprob_mean_diff"] = differences.sum()
        share.sums["current_fraction"] = is_current.sum()
        # Other weights' log-probabilities ought to differ: they say nothing of the engines.
        share.maxima["logprob_max_diff"] = (differences * is_current).amax()
        return share

    def _inputs(self, scored: CompletionLogprobs, groups: Sequence[TrainGroup], index: int) -> LossInputs:
        device, length = scored.logprobs.device, scored.logprobs.shape[1]
        has_reference = all(len(group.reference_logprobs) for group in groups)
        if self.algorithm.kl_coef > 0 and not has_reference:
            raise DataError(
                "algorithm.kl_coef is above 0, but a group of the batch has no reference logprobs"
            )
        # Without this the bonus would silently do nothing.
        assert not self.entropy_grad or scored.entropies.requires_grad, "entropies carry no gradient"
        old = None
        if self.recompute_logprobs:
            old = self.old_logprobs.setdefault(index, scored.logprobs.detach())
        behaviour = [row for group in groups for row in group.rollout_logprobs]
        reference = [row for group in groups for row in group.reference_logprobs]
        held_back = [row for group in groups for row in group.held_back]
        return LossInputs(
            logprobs=scored.logprobs,
            behaviour_logprobs=_pad(behaviour, length).to(device),
            advantages=_advantages(groups, length).to(device),
            mask=scored.mask,
            old_logprobs=old,
            reference_logprobs=_pad(reference, length).to(device) if has_reference else None,
            entropies=scored.entropies,
            held_back=_pad(held_back, length).to(device).bool() if held_back else None,
        )

    def _share(self, result: PolicyLoss, entropies: torch.Tensor) -> Share:
        sums = {
            "loss": result.loss.detach(),
            "policy_loss": result.policy_loss,
            "tokens": result.num_tokens,
            "kl": result.kl_sum,
            "clip_fraction": result.clipped_sum,
            "entropy": entropies.detach().sum(),
        }
        maxima = {}
        if self.algorithm.off_policy_threshold is not None:
            sums["off_policy_fraction"] = result.off_policy_sum
        if self.recompute_logprobs:
            sums["correction_fraction"] = result.bounded_sum
            sums["correction_ratio_mean"] = result.ratio_sum
            maxima["correction_ratio_max"] = result.ratio_max
        return Share(loss=result.loss, sums=sums, maxima=maxima)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedObjective:
    """A supervised objective is the weighted mean negative log-likelihood of a global batch's tokens."""

    total_weight: float
    """Sum of the weights of all tokens of the global batch."""
    temperature = 1.0
    entropy_grad = False

    def share(self, scored: CompletionLogprobs, groups: Sequence[TokenGroup], index: int) -> Share:
        """Returns what a micro-batch adds to the batch; `index` is not used."""
        weights = _pad([row for group in groups for row in token_weights(group)], scored.mask.shape[1])
        loss = -(scored.logprobs * weights.to(scored.logprobs.device)).sum() / self.total_weight
        sums = {"loss": loss.detach(), "tokens": scored.mask.sum(), "entropy": scored.entropies.sum()}
        return Share(loss=loss, sums=sums, maxima={})


def _sampled_alone(scored: CompletionLogprobs, groups: Sequence[TrainGroup]) -> CompletionLogprobs:
    """Takes the tokens that an environment wrote for padding: no loss, KL, entropy or metric sees them."""
    if not any(group.is_sampled for group in groups):
        return scored
    rows = [
        row
        for group in groups
        for row in group.is_sampled or [np.ones(len(tokens)) for tokens in group.token_ids]
    ]
    mask = scored.mask & _pad(rows, scored.mask.shape[1]).to(scored.mask.device).bool()
    return replace(scored, entropies=scored.entropies.masked_fill(~mask, 0.0), mask=mask)


def _advantages(groups: Sequence[TrainGroup], length: int) -> torch.Tensor:
    """Returns advantages [B] of samples, or [B, T] of tokens where rewards judge single tokens."""
    of_samples = torch.from_numpy(np.concatenate([group.advantages for group in groups]))
    if not any(group.token_advantages for group in groups):
        return of_samples
    return of_samples[:, None] + _pad([row for group in groups for row in group.token_advantages], length)


def token_weights(group: TokenGroup) -> tuple[np.ndarray, ...]:
    """Returns the weights of the completions' tokens, [K] of float32 [T]; 1 where the group has none."""
    return group.token_weights or tuple(np.ones(len(ids), dtype=np.float32) for ids in group.token_ids)


def _pad(rows: Sequence[np.ndarray], length: int) -> torch.Tensor:
    """Returns rows [B] of [T_b] as one tensor [B, T], with zeros at the end."""
    padded = np.zeros((len(rows), length), dtype=np.float32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(padded)
