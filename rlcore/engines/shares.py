"""What one micro-batch adds to the loss and the metrics of the global batch.

Every sum is over this micro-batch alone and every loss is divided by global totals, so that shares of all
micro-batches of all ranks add up to the loss of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from rlcore.algorithms.loss import PolicyLoss, policy_loss
from rlcore.config import AlgorithmConfig
from rlcore.engines.logprobs import CompletionLogprobs, TokenGroup
from rlcore.errors import DataError
from rlcore.types import TrainGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    loss: torch.Tensor
    """[] differentiable."""
    sums: dict[str, torch.Tensor]
    """Detached scalars that add up over the batch; `loss` and `tokens` among them."""
    maxima: dict[str, torch.Tensor]
    """Detached scalars of which the batch's is the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyObjective:
    """The policy loss of one global batch (`rlcore.algorithms.loss`). Made anew for each batch, because it
    remembers the learner's first logprobs."""

    num_tokens: int
    num_sequences: int
    max_tokens: int
    """Longest completion allowed, for `constant` aggregation."""
    algorithm: AlgorithmConfig
    temperature: float = 1.0
    """Of the policy that sampled, and is trained: `rollout.temperature`."""
    recompute_logprobs: bool
    """Whether the old logprobs are the learner's own. They cost no pass of their own: weights move only after
    all micro-batches, so the first update's forward gives them."""
    old_logprobs: dict[int, torch.Tensor] = field(default_factory=dict)
    """Micro-batch to its [B, T], filled during the first update."""

    @property
    def entropy_grad(self) -> bool:
        """Whether `share` needs entropies with a gradient."""
        return self.algorithm.entropy_coef > 0

    def share(self, scored: CompletionLogprobs, groups: Sequence[TrainGroup], index: int) -> Share:
        """`index` is the micro-batch's number, the same in every update on this batch.

        Raises DataError where the KL is asked for and a group carries no reference logprobs.
        """
        algorithm, device, length = self.algorithm, scored.logprobs.device, scored.logprobs.shape[1]
        has_reference = all(len(group.reference_logprobs) for group in groups)
        if algorithm.kl_coef > 0 and not has_reference:
            raise DataError(
                "algorithm.kl_coef is above 0, but a group of the batch has no reference logprobs"
            )
        # Without this the bonus would silently do nothing.
        assert not algorithm.entropy_coef or scored.entropies.requires_grad, "entropies carry no gradient"
        old = None
        if self.recompute_logprobs:
            old = self.old_logprobs.setdefault(index, scored.logprobs.detach())
        behaviour = [row for group in groups for row in group.rollout_logprobs]
        rollout_logprobs = _pad(behaviour, length).to(device)
        reference = [row for group in groups for row in group.reference_logprobs]
        result = policy_loss(
            scored.logprobs,
            rollout_logprobs,
            _advantages(groups, length).to(device),
            scored.mask,
            num_tokens=self.num_tokens,
            num_sequences=self.num_sequences,
            max_tokens=self.max_tokens,
            aggregation=algorithm.loss_aggregation,
            surrogate=algorithm.loss,
            clip_low=algorithm.clip_low,
            clip_high=algorithm.clip_high,
            clip_dual=algorithm.clip_dual,
            old_logprobs=old,
            correction=algorithm.correction,
            correction_low=algorithm.correction_low,
            correction_high=algorithm.correction_high,
            reference_logprobs=_pad(reference, length).to(device) if has_reference else None,
            kl_coef=algorithm.kl_coef if algorithm.kl_in == "loss" else 0.0,
            kl_estimator=algorithm.kl_estimator,
            entropies=scored.entropies,
            entropy_coef=algorithm.entropy_coef,
        )
        current = [
            row
            for group in groups
            for row in (group.is_current or [np.ones(len(tokens)) for tokens in group.token_ids])
        ]
        is_current = _pad(current, length).to(device).bool() & scored.mask
        differences = (scored.logprobs.detach() - rollout_logprobs).abs().masked_fill(~scored.mask, 0.0)
        share = self._share(result, scored.entropies)
        share.sums["logprob_mean_diff"] = differences.sum()
        share.sums["current_fraction"] = is_current.sum()
        # Other weights' log-probabilities ought to differ: they say nothing of the engines.
        share.maxima["logprob_max_diff"] = (differences * is_current).amax()
        return share

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
        if self.recompute_logprobs:
            sums["correction_fraction"] = result.bounded_sum
            sums["correction_ratio_mean"] = result.ratio_sum
            maxima["correction_ratio_max"] = result.ratio_max
        return Share(loss=result.loss, sums=sums, maxima=maxima)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedObjective:
    """Mean negative log-likelihood of the completion tokens of a global batch, by their weights."""

    total_weight: float
    temperature = 1.0
    entropy_grad = False

    def share(self, scored: CompletionLogprobs, groups: Sequence[TokenGroup], index: int) -> Share:
        weights = _pad([row for group in groups for row in token_weights(group)], scored.mask.shape[1])
        loss = -(scored.logprobs * weights.to(scored.logprobs.device)).sum() / self.total_weight
        sums = {"loss": loss.detach(), "tokens": scored.mask.sum(), "entropy": scored.entropies.sum()}
        return Share(loss=loss, sums=sums, maxima={})


def _advantages(groups: Sequence[TrainGroup], length: int) -> torch.Tensor:
    """[B], or [B, T] where rewards judge single tokens."""
    of_samples = torch.from_numpy(np.concatenate([group.advantages for group in groups]))
    if not any(group.token_advantages for group in groups):
        return of_samples
    return of_samples[:, None] + _pad([row for group in groups for row in group.token_advantages], length)


def token_weights(group: TokenGroup) -> tuple[np.ndarray, ...]:
    """[K] of float32 [T]"""
    return group.token_weights or tuple(np.ones(len(ids), dtype=np.float32) for ids in group.token_ids)


def _pad(rows: Sequence[np.ndarray], length: int) -> torch.Tensor:
    """[B] of [T_b] to [B, T], zeros at the end."""
    padded = np.zeros((len(rows), length), dtype=np.float32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(padded)
