"""Metrics of a step, computed from what went into its update. docs/guides/runs.md explains each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from rlcore.algorithms.ptr import MixedRewards
from rlcore.errors import NoUpdateError, RewardError
from rlcore.loop.batch import Advantages
from rlcore.loop.scored import ScoredGroup, columns, has_error, is_truncated
from rlcore.records.files import JsonObject
from rlcore.records.tracking import METRICS, SAMPLES
from rlcore.types import TrainBatch, repeated

log = logging.getLogger(__name__)

MAX_TRUNCATED = 0.2
"""Largest share of completions cut at the token limit that is passed over in silence."""


class TruncationAlarm:
    """Warns once in training and once in evaluation that many completions were cut at the token limit."""

    def __init__(self, max_tokens: int):
        self._max_tokens = max_tokens
        self._warned: set[str] = set()

    def note(self, share: float, where: str) -> None:
        """Takes the share of completions that were cut in a step or an evaluation.

        Args:
            where: `training` or `evaluation`.
        """
        if share > MAX_TRUNCATED and where not in self._warned:
            self._warned.add(where)
            log.warning(
                "%s: %.0f %% of the completions were cut at the token limit, rollout.max_tokens = %d (or the "
                "end of rollout.engine.max_model_len), before they were finished: rewards and metrics see no "
                "answer in them. Raise it, or teach shorter answers. Said once; completion/truncated and "
                "eval/truncated have every step's share",
                where,
                100 * share,
                self._max_tokens,
            )


def reward_metrics(
    scored: Sequence[ScoredGroup], mixed: MixedRewards, rewards: np.ndarray
) -> dict[str, float]:
    """Returns the metrics of a step's rewards. `rewards` [G, K] are the mixed ones after KL and over-long
    penalty."""
    metrics = {"reward/mean": float(rewards[mixed.mask].mean()) if mixed.mask.any() else float("nan")}
    metrics["reward/masked"] = float((~mixed.mask).sum())
    metrics["ptr/tau"], metrics["ptr/gate"] = float(mixed.tau.mean()), mixed.factor
    metrics["groups_without_signal"] = float((~mixed.has_signal).mean())
    for name, per_group in columns(scored).items():
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


def completion_metrics(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """Returns the mean number of tokens that the policy wrote, and the share of completions that was cut at
    the token limit."""
    completions = [completion for one in scored for completion in one.group.completions]
    return {
        "completion/tokens": float(np.mean([c.num_sampled for c in completions])),
        "completion/truncated": float(is_truncated(scored).mean()),
    }


def environment_metrics(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """Returns per completion the mean number of observations and of their tokens, and the share that the
    environment could not answer."""
    completions = [completion for one in scored for completion in one.group.completions]
    return {
        "environment/observations": float(np.mean([len(c.observations) for c in completions])),
        "environment/tokens": float(np.mean([len(c.token_ids) - c.num_sampled for c in completions])),
        "environment/failed": float(has_error(scored).mean()),
    }


def batch_metrics(batch: TrainBatch, mixed: MixedRewards, advantages: Advantages) -> dict[str, float]:
    """Returns what the update saw, how many groups were left out for want of signal, and the shares of
    tokens that Clip-Cov took out and KL-Cov holds back, where they are on."""
    metrics = {
        "batch/sequences": float(batch.num_sequences),
        "batch/tokens": float(batch.num_tokens),
        "batch/groups_dropped": float((mixed.mask.any(axis=1) & ~advantages.keep.any(axis=1)).sum()),
    }
    if advantages.num_cov_clipped is not None:
        metrics["batch/cov_clipped"] = advantages.num_cov_clipped / max(batch.num_tokens, 1)
    if advantages.held_back is not None:
        num_held_back = sum(int(row.sum()) for row in advantages.held_back.values())
        metrics["batch/cov_held_back"] = num_held_back / max(batch.num_tokens, 1)
    return metrics


def staleness_metrics(scored: Sequence[ScoredGroup], policy_version: int) -> dict[str, float]:
    """Returns by how many policy versions the policy's tokens are behind: mean and maximum."""
    completions = [completion for one in scored for completion in one.group.completions]
    versions = [repeated([span for c in completions if not c.observations for span in c.spans])]
    versions += [c.token_versions[c.is_sampled] for c in completions if c.observations]
    ages = policy_version - np.concatenate(versions)
    return {
        "staleness/mean": float(ages.mean()) if ages.size else 0.0,
        "staleness/max": float(ages.max(initial=0)),
    }


def check_learnt(rows: Sequence[JsonObject], rewards: Iterable[str], run_dir: Path) -> None:
    """Refuses to call a run finished that was trained on nothing.

    Args:
        rows: the run's metrics, a row per step.
        rewards: names.
        run_dir: the run's folder, for the errors.

    Raises:
        RewardError: every score of a reward failed.
        NoUpdateError: no update was made.
    """
    steps = [row for row in rows if "update_skipped" in row]
    for name in rewards:
        # A resumed run may have a reward that it did not begin with.
        asked = [row for row in steps if f"reward_errors/{name}" in row]
        if asked and all(row[f"reward_errors/{name}"] and row[f"reward/{name}"] is None for row in asked):
            raise RewardError(
                f"rewards.{name}: all of its scores in {len(asked)} steps failed, and the policy "
                f"learnt nothing from it; {run_dir / SAMPLES} has the reason of each"
            )
    trained = [row for row in steps if not row["update_skipped"]]
    num_skipped = max((row["skipped_steps"] for row in trained), default=0)
    # An earlier version's rows do not tell how many steps were made: of a run with them nothing is said.
    if steps and num_skipped == sum(row.get("optimizer_steps", np.inf) for row in trained):
        raise NoUpdateError(
            f"none of {len(steps)} steps changed the policy: {len(steps) - len(trained)} had too few "
            f"completions left to train on, {len(trained)} a loss or gradient that was not finite. "
            f"{run_dir / METRICS} has groups_without_signal, dropped_samples, reward/masked and "
            "grad_norm of each"
        )


def bar_values(metrics: Mapping[str, float], rewards: Iterable[str]) -> dict[str, str]:
    """Returns what the progress bar shows of a step: the rewards' means and the KL. A reward that judges
    single tokens alone is 0 for every completion, and left out."""
    means = {name: metrics.get(f"reward/{name}") for name in rewards}
    shown = {n: v for n, v in means.items() if v or f"reward/{n}/token_values" not in metrics}
    shown["kl"] = metrics.get("kl")
    return {name: f"{value:.3f}" for name, value in shown.items() if value is not None}


def headline(evaluation: Mapping[str, float]) -> dict[str, str]:
    """Returns an evaluation's first metric, the task's headline, as the progress bar shows it."""
    return {f"eval/{name}": f"{value:.3f}" for name, value in islice(evaluation.items(), 1)}
