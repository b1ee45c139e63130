"""Loss aggregations: from values of tokens to a part's share of the global batch's mean.

Every sum is divided by totals of the *global* batch, which the caller passes in. The shares of a batch's
parts therefore add up to the same mean, however the batch is cut. This module does not import torch, so that
the configuration can read `AGGREGATIONS` and stay light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTotals:
    """The totals of a global batch count all ranks and all micro-batches."""

    num_tokens: int
    """Completion tokens of the global batch."""
    num_sequences: int
    """Completions of the global batch, empty ones included."""
    max_tokens: int
    """Number of tokens of the longest completion allowed (`rollout.max_tokens`)."""


class Aggregation(Protocol):
    """An aggregation is a function from values of tokens to a part's share of the global batch's mean.

    The arguments are `values` [B, T], 0 where the mask is False, `mask` [B, T] bool and the `BatchTotals`.
    The function returns a scalar []; a batch without tokens gives 0.
    """

    def __call__(self, values: torch.Tensor, mask: torch.Tensor, totals: BatchTotals, /) -> torch.Tensor: ...


def token(values: torch.Tensor, mask: torch.Tensor, totals: BatchTotals) -> torch.Tensor:
    """Returns the mean over all completion tokens: DAPO, arXiv 2503.14476, equation 12."""
    return values.sum(dim=-1).sum() / max(totals.num_tokens, 1)


def sequence(values: torch.Tensor, mask: torch.Tensor, totals: BatchTotals) -> torch.Tensor:
    """Returns the mean over sequences of each sequence's mean: GRPO, arXiv 2402.03300. An empty sequence
    counts as 0."""
    means_B = values.sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)
    return means_B.sum() / max(totals.num_sequences, 1)


def constant(values: torch.Tensor, mask: torch.Tensor, totals: BatchTotals) -> torch.Tensor:
    """Returns the sum over num_sequences * max_tokens: Dr. GRPO, arXiv 2503.20783. The length of a sequence
    does not change the weight of its tokens."""
    return values.sum(dim=-1).sum() / max(totals.num_sequences * totals.max_tokens, 1)


AGGREGATIONS: dict[str, Aggregation] = {"token": token, "sequence": sequence, "constant": constant}
"""The aggregations by their names in `algorithm.loss_aggregation`."""
