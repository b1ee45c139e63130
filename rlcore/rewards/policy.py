"""Decides what becomes of a score that could not be made. Until here, a failure is data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlcore.errors import ConfigError, RewardError
from rlcore.types import Group, Score


def apply_error_policy(
    name: str, groups: Sequence[Group], scores: Sequence[Sequence[Score]], on_error: str
) -> np.ndarray:
    """Returns the values of one reward, with failures treated as configured.

    Args:
        name: the reward's name in the configuration.
        scores: [G][K], in the order of `groups` and their completions.
        on_error: `abort`, `mask`, or a number that stands in for a failed value.

    Returns:
        float64 [G, K]; NaN where a failed score is to be masked.

    Raises:
        RewardError: a score failed and `on_error` is `abort`; names the reward, the prompt and the reason.
        ConfigError: `on_error` is none of the three.
    """
    replacement = parse_on_error(name, on_error)
    values = np.full((len(groups), len(scores[0]) if scores else 0), np.nan)
    for g, (group, row) in enumerate(zip(groups, scores, strict=True)):
        for k, score in enumerate(row):
            if score.error is None:
                values[g, k] = score.value
            elif replacement is None:
                raise RewardError(
                    f"rewards.{name}: failed on completion {k} of prompt {group.prompt.id!r}: {score.error} "
                    f"(rewards.{name}.on_error is `abort`; `mask` or a number lets the run go on)"
                )
            else:
                values[g, k] = replacement
    return values


def parse_on_error(name: str, on_error: str) -> float | None:
    """Returns the value of a failed score: None to abort, NaN to mask, else the configured number.

    Raises:
        ConfigError: `on_error` is none of the three.
    """
    if on_error == "abort":
        return None
    if on_error == "mask":
        return float("nan")
    try:
        value = float(on_error)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ConfigError(f"rewards.{name}.on_error: got {on_error!r}; allowed are abort, mask or a number")
    return value
