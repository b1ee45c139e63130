"""GRPO-PTR (EmotionThinker, arXiv 2601.15668): progressive, trust-aware reasoning reward.

A reasoning reward is only as good as its agreement with the outcome. Two brakes: within a group, the trust
weight lowers it where wrong answers are reasoned better than right ones; over the run, a schedule keeps it
out until the outcome has been learnt, or lets it fade.
    R = sum_i w_i R_i, the reasoning term times tau * factor
The factor is 0 and then 1 (`ProgressiveGate`), exp(-step / T) (`annealing`), or always 1.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlcore.algorithms.process import StepValues, TokenValues


def trust_weight(outcomes: np.ndarray, reasoning: np.ndarray) -> float:
    """tau of one group, in (0, 1].

    `outcomes` [K], right where above 0.5; `reasoning` [K] in [0, 1]. With m_c and m_w the mean reasoning
    reward of the right and of the wrong samples: 1 where m_c >= m_w, else exp(m_c - m_w). A NaN leaves its
    sample out; where one side is empty there is nothing to compare, and tau is 1.
    """
    outcomes, reasoning = np.asarray(outcomes, dtype=np.float64), np.asarray(reasoning, dtype=np.float64)
    assert outcomes.shape == reasoning.shape and outcomes.ndim == 1, (outcomes.shape, reasoning.shape)
    known = np.isfinite(outcomes) & np.isfinite(reasoning)
    right, wrong = reasoning[known & (outcomes > 0.5)], reasoning[known & (outcomes <= 0.5)]
    if right.size == 0 or wrong.size == 0:
        return 1.0
    return float(np.exp(min(0.0, right.mean() - wrong.mean())))


class ProgressiveGate:
    """Closed until the outcome is good enough and has stabilised; then open for good.

    It opens at the first step at which the last `window` outcome means average at least `threshold` and the
    averages of the window's two halves differ by no more than `max_spread`. (The paper says "stabilised at
    about 50%" and gives no rule: this one is a choice.)
    """

    def __init__(self, threshold: float = 0.5, window: int = 10, max_spread: float = 0.1):
        if window < 1:
            raise ValueError(f"window must be at least 1 step, got {window}")
        self.threshold, self.window, self.max_spread = threshold, window, max_spread
        self.is_open = False
        self._history: deque[float] = deque(maxlen=window)

    def update(self, outcome_mean: float) -> bool:
        """Takes one step's mean outcome reward (a NaN is left out) and says whether the gate is open."""
        if np.isfinite(outcome_mean):
            self._history.append(float(outcome_mean))
        self.is_open = self.is_open or self._has_stabilised()
        return self.is_open

    def _has_stabilised(self) -> bool:
        if len(self._history) < self.window:
            return False
        values, half = np.array(self._history), self.window // 2
        spread = abs(values[:half].mean() - values[self.window - half :].mean()) if half else 0.0
        return bool(values.mean() >= self.threshold and spread <= self.max_spread)

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready; the settings are the configuration's and stay out of it."""
        return {"is_open": self.is_open, "history": list(self._history)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.is_open = bool(state["is_open"])
        self._history = deque((float(value) for value in state["history"]), maxlen=self.window)


def annealing(step: int, num_steps: float) -> float:
    """exp(-step / T) at step `step` (from 0), T = `num_steps`: the fading of the thinking reward in
    SophiaVL-R1 (arXiv 2505.17018), which has the same trust weight and no gate."""
    return math.exp(-step / num_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedRewards:
    """The rewards of a batch, ready for advantages."""

    rewards: np.ndarray
    """float64 [G, K]; 0 where masked."""
    mask: np.ndarray
    """bool [G, K], False where a score that enters the mix could not be made (NaN)."""
    tau: np.ndarray
    """float64 [G] trust weights, measured even where they are not applied."""
    steps: tuple[StepValues, ...] = ()
    """Of each reward that judges steps and counts at present."""

    @property
    def step_values(self) -> list[TokenValues]:
        return [of_reward.values for of_reward in self.steps]


def mix_rewards(
    scores: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    *,
    outcome: str | None = None,
    reasoning: str | None = None,
    trust: bool = True,
    factor: float = 1.0,
    token_values: Mapping[str, TokenValues] | None = None,
) -> MixedRewards:
    """Weighted sum of named scores; the `reasoning` one times its trust weight and the schedule's factor. The
    values of single tokens, name to [G][K] for those rewards that give any, get the same weights.

    `scores`: name to [G, K], NaN where a score failed; `weights` has the same names. A score of weight 0, or
    behind a factor of 0, is a diagnostic: its failures mask nothing. Without `outcome` or `reasoning` this
    is the plain weighted sum.
    Raises ValueError where names or shapes disagree.
    """
    _check(scores, weights, outcome, reasoning)
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    shape = next(iter(arrays.values())).shape
    tau_G = np.ones(shape[0])
    if outcome is not None and reasoning is not None:
        pairs = zip(arrays[outcome], arrays[reasoning], strict=True)
        tau_G = np.array([trust_weight(outcomes, values) for outcomes, values in pairs])

    token_values = token_values or {}
    rewards, mask = np.zeros(shape), np.ones(shape, dtype=bool)
    steps: list[StepValues] = []
    for name, values in arrays.items():
        is_scheduled = name == reasoning
        if weights[name] == 0 or (is_scheduled and factor == 0):
            continue
        mask &= np.isfinite(values)
        weight_G1 = np.full((shape[0], 1), float(weights[name]))
        if is_scheduled:
            weight_G1 *= factor * (tau_G[:, None] if trust else 1.0)
        rewards += weight_G1 * np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        if name in token_values:
            steps.append(StepValues(values=token_values[name], weights=weight_G1[:, 0]))
    return MixedRewards(rewards=np.where(mask, rewards, 0.0), mask=mask, tau=tau_G, steps=tuple(steps))


def _check(
    scores: Mapping[str, np.ndarray], weights: Mapping[str, float], outcome: str | None, reasoning: str | None
) -> None:
    if not scores:
        raise ValueError("no scores to mix: at least one reward is needed")
    if set(scores) != set(weights):
        raise ValueError(f"scores are of {sorted(scores)} but weights of {sorted(weights)}")
    shapes = {name: np.shape(values) for name, values in scores.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 2:
        raise ValueError(f"scores must share one shape [G, K], got {shapes}")
    for role, name in (("outcome", outcome), ("reasoning", reasoning)):
        if name is not None and name not in scores:
            raise ValueError(f"the {role} reward {name!r} is not among the rewards {sorted(scores)}")
