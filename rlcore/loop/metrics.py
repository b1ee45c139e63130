"""Metrics of a step, from what went into its update. docs/runs.md explains each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rlcore.algorithms.advantage import groups_with_signal
from rlcore.algorithms.ptr import MixedRewards
from rlcore.loop.batch import is_truncated
from rlcore.types import Group, Score, TrainBatch


def reward_metrics(
    scores: Mapping[str, Sequence[Sequence[Score]]], mixed: MixedRewards, factor: float
) -> dict[str, float]:
    """`scores` are reward name to [G][K]; `factor` is the schedule's on the reasoning reward."""
    metrics = {"reward/mean": float(mixed.rewards[mixed.mask].mean()) if mixed.mask.any() else float("nan")}
    metrics["reward/masked"] = float((~mixed.mask).sum())
    metrics["ptr/tau"], metrics["ptr/gate"] = float(mixed.tau.mean()), factor
    with_signal = groups_with_signal(mixed.rewards, mixed.mask, mixed.step_values)
    metrics["groups_without_signal"] = float((~with_signal).mean())
    for name, per_group in scores.items():
        made = [score for group in per_group for score in group if score.error is None]
        metrics[f"reward/{name}"] = float(np.mean([s.value for s in made])) if made else float("nan")
        metrics[f"reward_errors/{name}"] = float(sum(len(group) for group in per_group) - len(made))
        if any(score.token_values for score in made):
            sums = [sum(score.token_values.values()) for score in made]
            metrics[f"reward/{name}/token_values"] = float(np.mean(sums))
        for part in sorted({part for score in made for part in score.parts}):
            values = [score.parts[part] for score in made if part in score.parts]
            metrics[f"reward/{name}/{part}"] = float(np.mean(values))
    return metrics


def completion_metrics(groups: Sequence[Group]) -> dict[str, float]:
    completions = [completion for group in groups for completion in group.completions]
    return {
        "completion/tokens": float(np.mean([len(c.token_ids) for c in completions])),
        "completion/truncated": float(is_truncated(groups).mean()),
    }


def batch_metrics(batch: TrainBatch, mask: np.ndarray, keep: np.ndarray) -> dict[str, float]:
    """What the update saw, and what was left out."""
    return {
        "batch/sequences": float(batch.num_sequences),
        "batch/tokens": float(batch.num_tokens),
        "batch/groups_dropped": float((mask.any(axis=1) & ~keep.any(axis=1)).sum()),
    }
