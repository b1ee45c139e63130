"""Numbers that the ranks of a learner put together. Every function is collective."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist

from rlcore.errors import RLCoreError

_ARE_MEANS = ("loss", "policy_loss", "margin", "accuracy")
"""Sums that were divided by the batch's totals already."""


def all_reduce(values: Sequence[float], op: dist.ReduceOp.RedOpType, device: torch.device) -> np.ndarray:
    """Reduces each of `values` over the ranks: float64 [N], the same on every rank."""
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, op=op)
    return tensor.cpu().numpy()


def batch_metrics(
    sums: Sequence[Mapping[str, torch.Tensor]],
    maxima: Sequence[Mapping[str, torch.Tensor]],
    device: torch.device,
) -> dict[str, float]:
    """Returns metrics of the global batch from this rank's micro-batches, one mapping each (`Share`).

    Means are per token of the batch. The result is the same on every rank.
    """
    mine = {name: sum(float(each[name]) for each in sums) for name in sums[0]}
    largest = {name: max(float(each[name]) for each in maxima) for name in maxima[0]}
    total = _reduced(mine, dist.ReduceOp.SUM, device)
    num_tokens = max(total.pop("tokens"), 1.0)
    metrics = {name: value if name in _ARE_MEANS else value / num_tokens for name, value in total.items()}
    return metrics | _reduced(largest, dist.ReduceOp.MAX, device)


def together(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the metrics of several optimizer steps as one: the largest of maxima (`*_max*`), the last of
    what is counted or set (`skipped_steps`, `lr`), the sum of `num_micro_batches`, else the mean."""
    if len(steps) == 1:
        return dict(steps[0])
    columns = {name: [step[name] for step in steps] for name in steps[-1]}

    def one(name: str, values: list[float]) -> float:
        if name in ("lr", "skipped_steps"):
            return values[-1]
        if name == "num_micro_batches":
            return sum(values)
        return max(values) if "_max" in name else sum(values) / len(values)

    return {name: one(name, values) for name, values in columns.items()}


@contextmanager
def failing_together() -> Iterator[None]:
    """Fails on every rank where the block fails on one, so that no rank waits for one that is gone. The block
    itself holds no collective; its end is one."""
    own: Exception | None = None
    try:
        yield
    except Exception as error:
        own = error
    told = (
        own if own is None or isinstance(own, RLCoreError) else RuntimeError(f"{type(own).__name__}: {own}")
    )
    errors: list[Exception | None] = [None] * dist.get_world_size()
    dist.all_gather_object(errors, told)
    failed = own or next((each for each in errors if each is not None), None)
    if failed is not None:
        raise failed


def _reduced(
    metrics: Mapping[str, float], op: dist.ReduceOp.RedOpType, device: torch.device
) -> dict[str, float]:
    return dict(zip(metrics, all_reduce(list(metrics.values()), op, device).tolist(), strict=True))
