"""Learning-rate schedules, as a factor on the base rate. This module knows no optimizer."""

from __future__ import annotations

import math
from typing import Protocol


class LRSchedule(Protocol):
    """A learning-rate schedule is a function from progress to a factor on the base rate.

    Progress is 0 at the end of the warm-up and reaches 1 at the last step and past it.
    """

    def __call__(self, progress: float, /) -> float: ...


def constant(progress: float) -> float:
    """Returns 1: the rate stays."""
    return 1.0


def linear(progress: float) -> float:
    """Returns 1 - progress: the rate falls in a line to 0."""
    return 1.0 - progress


def cosine(progress: float) -> float:
    """Returns (1 + cos(pi progress)) / 2: the rate falls to 0 in half a cosine."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


LR_SCHEDULES: dict[str, LRSchedule] = {"constant": constant, "linear": linear, "cosine": cosine}
"""The learning-rate schedules by their names in `learner.lr_schedule`."""


def lr_factor(step: int, schedule: LRSchedule, *, warmup_steps: int, num_steps: int) -> float:
    """Returns the factor of optimizer step `step` (from 0) of `num_steps`.

    The factor rises linearly over `warmup_steps` and reaches 1 at the last of them. From there it follows
    `schedule`, whose progress would be 1 at step `num_steps`.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return schedule(min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps)))
