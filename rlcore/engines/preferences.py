"""The loss of preferences as the engine takes it: groups of answers with what the reference says of them, and
the share of a micro-batch.

This module knows neither the model nor the ranks, nor where preferences come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlcore.algorithms.preference import bradley_terry, dpo, ipo, kto, kto_margins, pointwise
from rlcore.config.offline import PreferConfig
from rlcore.engines.logprobs import CompletionLogprobs, TokenGroup
from rlcore.engines.shares import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceGroup(TokenGroup):
    """A preference group is one prompt with a chosen and a rejected answer, or with one labelled answer. For
    a reward model each answer stands there twice, with the question and the verdict 1, then 0."""

    prompt_id: str
    reference: np.ndarray
    """float64 [K]: log-probability of each answer by the reference; 0 for a reward model."""
    desirable: bool = True
    """Label of a labelled answer; true for pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceObjective:
    """A preference objective is the mean of `PreferConfig.loss` over a global batch."""

    config: PreferConfig
    num_examples: float
    """Pairs or labelled answers of the global batch."""
    kl: float = 0.0
    """KTO's point of reference; the pairs' losses have none."""
    temperature = 1.0
    entropy_grad = False

    @property
    def num_scored(self) -> int:
        """Returns how many rows of log-probabilities an example has."""
        return (2 if self.config.is_of_pairs else 1) * (2 if self.config.trains_reward else 1)

    def share(self, scored: CompletionLogprobs, groups: Sequence[PreferenceGroup], index: int) -> Share:
        """Returns what a micro-batch of whole groups adds to the batch; `index` is not used."""
        if self.config.trains_reward:  # the verdict alone
            last = scored.mask.sum(-1, keepdim=True) - 1
            sums = scored.logprobs.gather(-1, last)[:, 0].double()
        else:
            sums = scored.logprobs.double().sum(-1)  # [sum of K]
        whole = len(sums) // self.num_scored
        if not whole:  # a part of an example, which a rank computes for others' sake
            return Share(loss=sums.sum() * 0.0, sums={"loss": sums.sum() * 0.0}, maxima={})
        losses, margins = self.measure(sums.view(whole, self.num_scored), groups)
        loss = losses.sum() / self.num_examples
        mean = {"loss": losses, "margin": margins, "accuracy": is_right(margins)}
        of_batch = {name: each.detach().sum() / self.num_examples for name, each in mean.items()}
        extra = {"tokens": scored.mask.sum(), "entropy": scored.entropies.detach().sum()}
        return Share(loss=loss, sums=of_batch | extra, maxima={})

    def measure(self, logprobs: Tensor, groups: Sequence[PreferenceGroup]) -> tuple[Tensor, Tensor]:
        """Returns the losses and the margins [B], in units of the reward.

        Args:
            logprobs: [B, K] of the answers of B groups, by the policy; of the verdicts, by a reward model.
        """
        config = self.config
        desirable = torch.tensor([group.desirable for group in groups], device=logprobs.device)
        if config.trains_reward:
            rewards = logprobs[:, 0::2] - logprobs[:, 1::2]
            if config.is_of_pairs:
                return bradley_terry(rewards), (rewards[:, 0] - rewards[:, 1]).detach()
            return pointwise(rewards[:, 0], desirable), (rewards[:, 0] * (desirable * 2 - 1)).detach()
        reference = torch.from_numpy(np.stack([group.reference for group in groups])).to(logprobs)
        ratios = logprobs - reference[:, : logprobs.shape[1]]
        if config.loss == "kto":
            losses = kto(
                ratios[:, 0],
                desirable,
                self.kl,
                beta=config.beta,
                desirable_weight=config.desirable_weight,
                undesirable_weight=config.undesirable_weight,
            )
            return losses, kto_margins(ratios[:, 0].detach(), desirable, self.kl, beta=config.beta)
        margins = config.beta * (ratios[:, 0] - ratios[:, 1]).detach()
        if config.loss == "ipo":
            return ipo(ratios, beta=config.beta), margins
        return dpo(ratios, beta=config.beta, label_smoothing=config.label_smoothing), margins


def is_right(margins: Tensor) -> Tensor:
    """Returns 1 where a margin is above 0, one half where it is 0: the reference is right by chance."""
    return (margins.sign() + 1) / 2
