"""Confidence intervals of shares by the bootstrap over utterances (Efron and Tibshirani 1993, chapter 13).

A table of scores has a row per utterance and a column per quantity (an attribute, an emotion), with NaN where
the utterance says nothing of it. Two models that answered the same utterances are resampled together, so that
the interval of their difference is the paired one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MEAN = "mean"
"""Name of the unweighted mean over the columns."""
NUM_RESAMPLES = 2000
_CHUNK = 250
"""Resamples at a time: bounds the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimate is a mean with its 95 % percentile interval."""

    value: float
    low: float
    high: float
    num: int
    """Number of utterances behind the mean."""


def plain(value: Any) -> Any:
    """Returns nested mappings with dictionaries in the place of estimates, for JSON."""
    if isinstance(value, Estimate):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return value


def estimate(
    scores: np.ndarray, names: Sequence[str], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> dict[str, Estimate]:
    """Returns each column's mean over the rows that have it, and `mean` over the columns.

    Args:
        scores: float [N, C], NaN where a row has no such score; every column has at least one.
    """
    _check(scores, names)
    return _estimates(scores, column_means(scores), resampled_means(scores, seed, num_resamples), names)


def estimate_gain(
    before: np.ndarray,
    after: np.ndarray,
    names: Sequence[str],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Estimate]:
    """Estimates `after` less `before`, as `estimate` does: rows are the same utterances in both."""
    _check(before, names)
    if not np.array_equal(np.isnan(before), np.isnan(after)):
        raise ValueError("both tables must have the same utterances and the same gaps")
    # The same seed draws the same utterances.
    resampled = resampled_means(after, seed, num_resamples) - resampled_means(before, seed, num_resamples)
    return _estimates(after, column_means(after) - column_means(before), resampled, names)


def column_means(scores: np.ndarray) -> np.ndarray:
    """Returns [C + 1]: the mean of each column of [N, C] without its NaN, then the mean of those."""
    means = np.nanmean(scores, axis=0)
    return np.append(means, means.mean())


def resampled_means(scores: np.ndarray, seed: int, num_resamples: int) -> np.ndarray:
    """Returns [R, C + 1]: `column_means` of `num_resamples` draws of N rows with replacement.

    A column that a draw misses altogether is NaN there, and the mean is over the others.
    """
    known = ~np.isnan(scores)
    filled = np.where(known, scores, 0.0)
    parts = []
    for counts in draws(len(scores), seed, num_resamples):
        num_known = counts @ known
        means = np.divide(
            counts @ filled, num_known, out=np.full(num_known.shape, np.nan), where=num_known > 0
        )
        parts.append(np.column_stack([means, np.nanmean(means, axis=1)]))
    return np.concatenate(parts)


def draws(num_rows: int, seed: int, num_resamples: int) -> Iterator[np.ndarray]:
    """Yields how often each row is drawn, float64 [r, N], in chunks of r that make `num_resamples`; the same
    seed draws the same rows."""
    rng = np.random.default_rng(seed)
    for start in range(0, num_resamples, _CHUNK):
        size = min(_CHUNK, num_resamples - start)
        yield rng.multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=size).astype(float)


def _estimates(
    scores: np.ndarray, values: np.ndarray, resampled: np.ndarray, names: Sequence[str]
) -> dict[str, Estimate]:
    lows, highs = np.nanpercentile(resampled, [2.5, 97.5], axis=0)
    nums = [*(~np.isnan(scores)).sum(axis=0), len(scores)]
    return {
        name: Estimate(value=float(value), low=float(low), high=float(high), num=int(num))
        for name, value, low, high, num in zip([*names, MEAN], values, lows, highs, nums, strict=True)
    }


def _check(scores: np.ndarray, names: Sequence[str]) -> None:
    if scores.ndim != 2 or scores.shape[1] != len(names) or not len(scores):
        raise ValueError(f"scores: got shape {scores.shape}; allowed is [N, {len(names)}] with N above 0")
    if np.isnan(scores).all(axis=0).any():
        raise ValueError("scores: a column without a single score")
