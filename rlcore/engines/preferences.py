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

from rlcore.algorithms.preference import dpo, ipo, kto, kto_margins
from rlcore.config.offline import PreferConfig
from rlcore.engines.logprobs import CompletionLogprobs, TokenGroup
from rlcore.engines.shares import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceGroup(TokenGroup):
    """A preference group is one prompt with a chosen and a rejected answer, or with one labelled answer."""

    prompt_id: str
    reference: np.ndarray
    """float64 [K]: log-probability of each answer by the reference."""
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

    def share(self, scored: CompletionLogprobs, groups: Sequence[PreferenceGroup], index: int) -> Share:
        """Returns what a micro-batch of whole groups adds to the batch; `index` is not used."""
        sums = scored.logprobs.double().sum(-1)  # [sum of K]
        size = 1 if self.config.loss == "kto" else 2
        whole = len(sums) // size
        if not whole:  # one answer of a pair, which a rank computes for others' sake
            return Share(loss=sums.sum() * 0.0, sums={"loss": sums.sum() * 0.0}, maxima={})
        losses, margins = self.measure(sums.view(whole, size), groups)
        loss = losses.sum() / self.num_examples
        mean = {"loss": losses, "margin": margins, "accuracy": is_right(margins)}
        of_batch = {name: each.detach().sum() / self.num_examples for name, each in mean.items()}
        extra = {"tokens": scored.mask.sum(), "entropy": scored.entropies.detach().sum()}
        return Share(loss=loss, sums=of_batch | extra, maxima={})

    def measure(self, logprobs: Tensor, groups: Sequence[PreferenceGroup]) -> tuple[Tensor, Tensor]:
        """Returns the losses and the margins [B], in units of the implicit reward.

        Args:
            logprobs: [B, K] of the answers of B groups, by the policy.
        """
        config = self.config
        reference = torch.from_numpy(np.stack([group.reference for group in groups])).to(logprobs)
        ratios = logprobs - reference
        if config.loss == "kto":
            desirable = torch.tensor([group.desirable for group in groups], device=logprobs.device)
            weights = (config.desirable_weight, config.undesirable_weight)
            losses = kto(
                ratios[:, 0],
                desirable,
                self.kl,
                beta=config.beta,
                desirable_weight=weights[0],
                undesirable_weight=weights[1],
            )
            return losses, kto_margins(ratios[:, 0].detach(), desirable, self.kl, beta=config.beta)
        margins = config.beta * (ratios[:, 0] - ratios[:, 1]).detach()
        if config.loss == "ipo":
            return ipo(ratios, beta=config.beta), margins
        return dpo(ratios, beta=config.beta, label_smoothing=config.label_smoothing), margins


def is_right(margins: Tensor) -> Tensor:
    """Returns 1 where a margin is above 0, one half where it is 0: the reference is right by chance."""
    return (margins.sign() + 1) / 2
