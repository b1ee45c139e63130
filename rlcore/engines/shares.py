"""What one micro-batch adds to the loss and the metrics of the global batch.

Every sum is over this micro-batch alone and every loss is divided by global totals, so that shares of all
micro-batches of all ranks add up to the loss of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rlcore.algorithms.loss import policy_loss
from rlcore.engines.logprobs import CompletionLogprobs
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
    """Clipped surrogate and KL penalty of a global batch (`rlcore.algorithms.loss`)."""

    num_tokens: int
    num_sequences: int
    kl_coef: float
    clip_low: float
    clip_high: float
    aggregation: str

    def share(self, scored: CompletionLogprobs, groups: Sequence[TrainGroup]) -> Share:
        """The rollout's logprobs are the behaviour policy: the ratio then also corrects what the rollout
        engine and the learner compute differently.

        Raises DataError where the KL is asked for and a group carries no reference logprobs.
        """
        device, length = scored.logprobs.device, scored.logprobs.shape[1]
        has_reference = all(len(group.reference_logprobs) for group in groups)
        if self.kl_coef > 0 and not has_reference:
            raise DataError(
                "algorithm.kl_coef is above 0, but a group of the batch has no reference logprobs"
            )
        behaviour = [row for group in groups for row in group.rollout_logprobs]
        reference = [row for group in groups for row in group.reference_logprobs]
        result = policy_loss(
            scored.logprobs,
            _pad(behaviour, length).to(device),
            torch.as_tensor(np.concatenate([group.advantages for group in groups]), device=device),
            scored.mask,
            num_tokens=self.num_tokens,
            num_sequences=self.num_sequences,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            aggregation=self.aggregation,
            reference_logprobs=_pad(reference, length).to(device) if has_reference else None,
            kl_coef=self.kl_coef,
        )
        sums = {
            "loss": result.loss.detach(),
            "policy_loss": result.policy_loss,
            "tokens": result.num_tokens,
            "kl": result.kl_sum,
            "clip_fraction": result.clipped_sum,
            "entropy": scored.entropies.sum(),
            "logprob_mean_diff": result.difference_sum,
        }
        return Share(loss=result.loss, sums=sums, maxima={"logprob_max_diff": result.difference_max})


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedObjective:
    """Mean negative log-likelihood of the completion tokens of a global batch."""

    num_tokens: int

    def share(self, scored: CompletionLogprobs, groups: Sequence[object]) -> Share:
        loss = -scored.logprobs.sum() / self.num_tokens
        sums = {"loss": loss.detach(), "tokens": scored.mask.sum(), "entropy": scored.entropies.sum()}
        return Share(loss=loss, sums=sums, maxima={})


def _pad(rows: Sequence[np.ndarray], length: int) -> torch.Tensor:
    """[B] of [T_b] to [B, T], zeros at the end."""
    padded = np.zeros((len(rows), length), dtype=np.float32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(padded)
