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

    The gate opens at the first step at which the last `window` outcome means average at least `threshold` and
    the averages of the window's two halves differ by no more than `max_spread`. (EmotionThinker, arXiv
    2601.15668, says "stabilised at about 50%" and gives no rule: this one is a choice.)
    """

    def __init__(self, threshold: float = 0.5, window: int = 10, max_spread: float = 0.1):
        if window < 1:
            raise ValueError(f"window must be at least 1 step, got {window}")
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
        values, half = np.array(self._history), self.window // 2
        spread = abs(values[:half].mean() - values[self.window - half :].mean()) if half else 0.0
        return bool(values.mean() >= self.threshold and spread <= self.max_spread)

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
