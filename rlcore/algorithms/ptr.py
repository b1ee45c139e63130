"""GRPO-PTR (EmotionThinker, arXiv 2601.15668): progressive, trust-aware reasoning reward.

A reasoning reward is only as good as its agreement with the outcome. Two brakes: within a group, the trust
weight lowers it where wrong answers are reasoned better than right ones; over the run, a schedule keeps it
out until the outcome has been learnt, or lets it fade.
    R = sum_i w_i R_i, the reasoning term times tau * factor
The factor is that of a schedule in `ptr_schedule.py`: 0 and then 1, exp(-step / T), or always 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlcore.algorithms.advantage import RewardTerm
from rlcore.algorithms.process import GivenAdvantages, StepValues, TokenValues
from rlcore.algorithms.signal import groups_with_signal


def trust_weight(outcomes: np.ndarray, reasoning: np.ndarray) -> float:
    """Returns tau of one group, in (0, 1] (EmotionThinker, arXiv 2601.15668).

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


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedRewards:
    """Mixed rewards hold the one reward of each completion in a batch, before KL and over-long penalty."""

    rewards: np.ndarray
    """float64 [G, K]; 0 where masked."""
    mask: np.ndarray
    """bool [G, K]: False where a score that enters the mix failed, and where an answer is left out for being
    truncated."""
    tau: np.ndarray
    """float64 [G]: trust weights, measured even where they are not applied."""
    factor: float = 1.0
    """The schedule's factor on the reasoning reward."""
    steps: tuple[StepValues, ...] = ()
    """Values of steps, one entry for each reward that judges steps and counts at present."""
    given: tuple[GivenAdvantages, ...] = ()
    """Advantages of tokens that rewards give themselves, one entry for each such reward that counts."""
    terms: tuple[RewardTerm, ...] = ()
    """The rewards that count at present, where each is to be normalised by itself."""

    @property
    def has_signal(self) -> np.ndarray:
        """Returns bool [G]: whether the counting samples of each group differ (`rlcore.algorithms.signal`),
        in the mixed reward or, where there are `terms`, in one of these. An advantage that a reward gives a
        token is one as well, unless it is 0."""
        steps = [of_reward.values for of_reward in self.steps]
        tables = [term.values for term in self.terms] or [self.rewards]
        told = np.zeros(self.mask.shape, dtype=bool)
        for each in self.given:
            told |= [[bool(np.any(row)) for row in of_group] for of_group in each.rows]
        differ = [groups_with_signal(table, self.mask, steps) for table in tables]
        return np.any([*differ, (told & self.mask).any(axis=1)], axis=0)

    def without(self, excluded: np.ndarray) -> MixedRewards:
        """Returns the same with the samples masked where `excluded` [G, K] is True."""
        mask = self.mask & ~excluded
        return replace(self, rewards=np.where(mask, self.rewards, 0.0), mask=mask)


def mix_rewards(
    scores: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    *,
    outcome: str | None = None,
    reasoning: str | None = None,
    trust: bool = True,
    factor: float = 1.0,
    token_values: Mapping[str, TokenValues] | None = None,
    token_advantages: Mapping[str, Sequence[Sequence[Sequence[float]]]] | None = None,
    decoupled: bool = False,
) -> MixedRewards:
    """Mixes named scores into their weighted sum, the `reasoning` one times trust weight and `factor`. The
    values and advantages of single tokens, `[G][K]` of each reward that gives any, get the same weights. The
    score of a reward that gives advantages enters no sum: it only says how good an answer is.

    `scores`: name to [G, K], NaN where a score failed; `weights` has the same names. A score of weight 0, or
    behind a factor of 0, is a diagnostic: its failures mask nothing. Without `outcome` or `reasoning` this
    is the plain weighted sum. With `decoupled` its terms are kept apart as well.
    Raises ValueError where names or shapes disagree.
    """
    _check(scores, weights, outcome, reasoning)
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    shape = next(iter(arrays.values())).shape
    tau_G = np.ones(shape[0])
    if outcome is not None and reasoning is not None:
        pairs = zip(arrays[outcome], arrays[reasoning], strict=True)
        tau_G = np.array([trust_weight(outcomes, values) for outcomes, values in pairs])

    token_values, token_advantages = token_values or {}, token_advantages or {}
    rewards, mask = np.zeros(shape), np.ones(shape, dtype=bool)
    steps: list[StepValues] = []
    given: list[GivenAdvantages] = []
    terms: list[RewardTerm] = []
    for name, values in arrays.items():
        is_scheduled = name == reasoning
        if weights[name] == 0 or (is_scheduled and factor == 0):
            continue
        mask &= np.isfinite(values)
        weight_G1 = np.full((shape[0], 1), float(weights[name]))
        if is_scheduled:
            weight_G1 *= factor * (tau_G[:, None] if trust else 1.0)
        if name in token_values:
            steps.append(StepValues(values=token_values[name], weights=weight_G1[:, 0]))
        if name in token_advantages:
            given.append(GivenAdvantages(rows=token_advantages[name], weights=weight_G1[:, 0]))
            continue
        terms.append(RewardTerm(values=values, weights=weight_G1[:, 0]))
        rewards += weight_G1 * np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    return MixedRewards(
        rewards=np.where(mask, rewards, 0.0),
        mask=mask,
        tau=tau_G,
        factor=factor,
        steps=tuple(steps),
        given=tuple(given),
        terms=tuple(terms) if decoupled else (),
    )


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
