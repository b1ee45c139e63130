"""A run's headline: the task's first metric with its 95 % interval, and what it gained.

An interval needs the single answers' values. They are those of the reward whose mean over the evaluation is
the metric; where no reward's is, there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from rlcore.records.files import JsonObject

NUM_RESAMPLES = 2000
_SAME = 1e-6


def scored_value(row: Mapping[str, Any], reward: str) -> float | None:
    """Returns the value that a reward gave to a row of samples.jsonl; None where there is none."""
    score = (row.get("scores") or {}).get(reward)
    value = score.get("value") if isinstance(score, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def values_behind(rows: Sequence[JsonObject], metric: float | None) -> dict[str, float] | None:
    """Returns each prompt's value where a reward's mean over `rows` is `metric`; else None."""
    if metric is None or not rows:
        return None
    for reward in rows[0].get("scores") or {}:
        found = {
            str(row["prompt"]): value for row in rows if (value := scored_value(row, reward)) is not None
        }
        if found and abs(float(np.mean(list(found.values()))) - metric) < _SAME:
            return found
    return None


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of a mean: Wilson's for shares of right answers (values 0 and 1), else the
    percentile bootstrap's."""
    sample = np.asarray(values, dtype=float)
    if np.isin(sample, (0.0, 1.0)).all():
        found = stats.binomtest(int(sample.sum()), len(sample)).proportion_ci(method="wilson")
        return float(found.low), float(found.high)
    return _bootstrap(sample)


def gain(before: Mapping[str, float], after: Mapping[str, float]) -> JsonObject | None:
    """Returns the mean of `after` less `before` over the prompts of both, with its paired 95 % bootstrap
    interval; None where there are fewer than two."""
    shared = [prompt for prompt in before if prompt in after]
    if len(shared) < 2:
        return None
    differences = np.array([after[prompt] - before[prompt] for prompt in shared])
    low, high = _bootstrap(differences)
    return {"value": float(differences.mean()), "low": low, "high": high, "n": len(shared)}


def _bootstrap(sample: np.ndarray) -> tuple[float, float]:
    if len(sample) < 2 or np.ptp(sample) == 0:
        return float(sample.mean()), float(sample.mean())
    rng = np.random.default_rng(0)
    counts = rng.multinomial(len(sample), np.full(len(sample), 1 / len(sample)), size=NUM_RESAMPLES)
    low, high = np.percentile(counts @ sample / len(sample), [2.5, 97.5])
    return float(low), float(high)


def headline(
    rows: Sequence[JsonObject], evaluations: Mapping[int, Sequence[JsonObject]]
) -> tuple[JsonObject | None, dict[str, float]]:
    """Returns the headline of a run and the last evaluation's values by prompt, empty where not known.

    Args:
        rows: of metrics.jsonl, by step.
        evaluations: step to its held-out rows of samples.jsonl, of the first and the last evaluation.
    """
    found = [(row["step"], *first) for row in rows if (first := _first_metric(row)) is not None]
    if not found:
        return None, {}
    name = found[-1][1]
    points = [(step, value) for step, metric, value in found if metric == name]
    made: list[JsonObject] = []
    behind: list[dict[str, float]] = []
    for step, value in (points[0], points[-1]) if len(points) > 1 else points:
        answers = evaluations.get(step, ())
        values = values_behind(answers, value) or {}
        low, high = interval(list(values.values())) if values else (None, None)
        made.append({"step": step, "value": value, "low": low, "high": high, "n": len(answers) or None})
        behind.append(values)
    head: JsonObject = {"metric": name, "points": points, **made[-1]}
    if len(made) > 1:
        head["before"] = made[0]
        head["gain"] = gain(behind[0], behind[1]) if behind[0] and behind[1] else None
    return head, behind[-1]


def _first_metric(row: JsonObject) -> tuple[str, float] | None:
    """Returns the first metric of an evaluation, the task's headline."""
    for name, value in row.items():
        if name.startswith("eval/"):
            return (name.removeprefix("eval/"), float(value)) if value is not None else None
    return None
