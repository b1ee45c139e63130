"""Schedules of the reasoning reward: the factor that multiplies it, over the steps of a run.

A schedule takes its settings by name, those of `algorithm.ptr` that its constructor asks for. The training
loop moves it on once per step by `observe`; asking for the factor changes nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

State = Mapping[str, Any]
"""The state of a schedule as JSON values."""

_STANDARD_ERRORS = 3.0
"""Standard errors between what the gate has seen and what it takes for true."""
_ROUNDING = 1e-9
"""Difference that sums of floats make by themselves."""


class RewardSchedule(Protocol):
    """A reward schedule gives the factor on the reasoning reward, step by step."""

    def factor(self, step: int) -> float:
        """Returns the factor at `step` (from 0), at least 0."""
        ...

    def observe(self, outcome_mean: float) -> None:
        """Takes the mean outcome reward of one step; NaN where no outcome could be scored."""
        ...

    def state_dict(self) -> dict[str, object]:
        """Returns what a resumed run needs, as JSON values. Settings belong to the configuration."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Goes on from what `state_dict` returned."""
        ...


class Constant:
    """The reasoning reward always counts in full."""

    def factor(self, step: int) -> float:
        """Returns 1."""
        return 1.0

    def observe(self, outcome_mean: float) -> None:
        """Learns nothing from the outcome."""

    def state_dict(self) -> dict[str, object]:
        """Returns an empty state."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Has no state to take."""


class Annealing(Constant):
    """The reasoning reward fades by exp(-step / T), T = `anneal_steps`: SophiaVL-R1 (arXiv 2505.17018), which
    has the same trust weight and no gate."""

    def __init__(self, anneal_steps: float):
        self.anneal_steps = anneal_steps

    def factor(self, step: int) -> float:
        """Returns exp(-step / anneal_steps), in (0, 1]."""
        return math.exp(-step / self.anneal_steps)


class ProgressiveGate:
    """A progressive gate is closed until the outcome is good enough and has stabilised; then it is open for
    good.

    A line is fitted to the last `window` outcome means by least squares. The gate opens at the first step at
    which, each with three standard errors to spare, the mean is at least `threshold` and the line rises or
    falls by no more than `max_spread` from one end of the window to the other. What the noise of batches
    could have made by itself does not open it. (EmotionThinker, arXiv 2601.15668, says "stabilised at about
    50%" and gives no rule: this one is a choice; docs/explanation/method.md shows how it behaves.)

    Args:
        window: steps, at least 3. A short one knows little: below 30, noise alone often keeps it closed.
    """

    def __init__(self, threshold: float = 0.5, window: int = 150, max_spread: float = 0.15):
        if window < 3:
            raise ValueError(f"window must be at least 3 steps, got {window}")
        self.threshold, self.window, self.max_spread = threshold, window, max_spread
        self.is_open = False
        self._history: deque[float] = deque(maxlen=window)

    def factor(self, step: int) -> float:
        """Returns 0 while the gate is closed, then 1."""
        return float(self.is_open)

    def observe(self, outcome_mean: float) -> None:
        """Takes the mean outcome reward of one step and opens the gate where it has stabilised. A NaN is left
        out."""
        if np.isfinite(outcome_mean):
            self._history.append(float(outcome_mean))
        self.is_open = self.is_open or self._has_stabilised()

    def _has_stabilised(self) -> bool:
        if len(self._history) < self.window:
            return False
        outcomes = np.array(self._history)
        times = np.arange(self.window) - (self.window - 1) / 2
        squares = np.square(times).sum()
        slope = (times * outcomes).sum() / squares
        residuals = outcomes - outcomes.mean() - slope * times
        deviation = np.sqrt(np.square(residuals).sum() / (self.window - 2))
        steps = self.window - 1
        lowest_mean = outcomes.mean() - _STANDARD_ERRORS * deviation / np.sqrt(self.window)
        largest_change = steps * (abs(slope) + _STANDARD_ERRORS * deviation / np.sqrt(squares))
        return bool(
            lowest_mean >= self.threshold - _ROUNDING and largest_change <= self.max_spread + _ROUNDING
        )

    def state_dict(self) -> dict[str, object]:
        """Returns whether the gate is open, and the outcome means in its window."""
        return {"is_open": self.is_open, "history": list(self._history)}

    def load_state_dict(self, state: State) -> None:
        """Goes on from what `state_dict` returned."""
        self.is_open = bool(state["is_open"])
        self._history = deque((float(value) for value in state["history"]), maxlen=self.window)


REWARD_SCHEDULES: dict[str, Callable[..., RewardSchedule]] = {
    "progressive": ProgressiveGate,
    "anneal": Annealing,
    "constant": Constant,
}
"""Names that `algorithm.ptr.schedule` takes, and what each builds."""
