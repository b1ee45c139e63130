"""Learning-rate schedules, as a factor on the base rate."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "linear", "cosine")


def lr_factor(step: int, schedule: str, *, warmup_steps: int, num_steps: int) -> float:
    """Factor of optimizer step `step` (from 0) of `num_steps`, in [0, 1].

    Rises linearly over `warmup_steps` and reaches 1 at the last of them; then stays (`constant`), or falls
    in a line (`linear`) or half a cosine (`cosine`) that would reach 0 at `num_steps`.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    raise ValueError(f"learner.lr_schedule must be one of {SCHEDULES}, got {schedule!r}")
