"""Rewards made of rewards, in one actor: weighted sums, products and gates.

They nest: each part is a section `{target, args}`. Rewards that should run apart are named apart in the
configuration, where their weights add them up.

A part's value stands in `parts` under its name, its own parts under `name/part`. Where a part fails, the
whole fails and says which. Values of single tokens cannot be combined here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlcore.config import RewardConfig
from rlcore.errors import ConfigError
from rlcore.rewards.loading import build_reward
from rlcore.rewards.protocol import Reward
from rlcore.types import Group, RewardContext, Score

Section = Mapping[str, Any]
"""`target` and `args` of one reward, as in the configuration."""

Combine = Callable[[Mapping[str, float]], float]


class WeightedSum(Reward):
    """Scores by a weighted sum of rewards: sum_i w_i r_i.

    Args:
        rewards: name to section; the section's `weight` counts, 1 where there is none.
    """

    def __init__(self, rewards: Mapping[str, Section]):
        self._rewards = _build_all(rewards)
        self._weights = {name: float(section.get("weight", 1.0)) for name, section in rewards.items()}

    def score_batch(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        return _joined(self._rewards, groups, context, self._combine)

    def _combine(self, values: Mapping[str, float]) -> float:
        return sum(self._weights[name] * value for name, value in values.items())


class Product(Reward):
    """Scores by a product of rewards, prod_i r_i: no part makes up for another.

    Args:
        rewards: name to section.
    """

    def __init__(self, rewards: Mapping[str, Section]):
        self._rewards = _build_all(rewards)

    def score_batch(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        return _joined(self._rewards, groups, context, lambda values: math.prod(values.values()))


class Gate(Reward):
    """Scores by `reward` where `gate` reaches `threshold`; elsewhere the score is `otherwise`.

    Completions that do not pass are never shown to `reward`, which may be slow or cost money. The groups that
    `reward` sees hold the others alone.

    Args:
        gate: section of the reward that decides.
        reward: section of the reward behind it.
    """

    def __init__(self, gate: Section, reward: Section, threshold: float = 1.0, otherwise: float = 0.0):
        self._gate, self._reward = _build("gate", gate), _build("reward", reward)
        self._threshold, self._otherwise = threshold, otherwise

    def score_batch(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        gates = [list(row) for row in self._gate.score_batch(groups, context)]
        passing = [
            [k for k, score in enumerate(row) if score.error is None and score.value >= self._threshold]
            for row in gates
        ]
        behind = [
            replace(group, completions=tuple(group.completions[k] for k in ks))
            for group, ks in zip(groups, passing, strict=True)
            if ks
        ]
        answers = iter(self._reward.score_batch(behind, context) if behind else [])
        rows = []
        for row, ks in zip(gates, passing, strict=True):
            inner = dict(zip(ks, next(answers) if ks else [], strict=True))
            rows.append([self._joined(score, inner.get(k)) for k, score in enumerate(row)])
        return rows

    def _joined(self, gate: Score, inner: Score | None) -> Score:
        named = {"gate": gate} if inner is None else {"gate": gate, "reward": inner}
        return _join(named, lambda values: values.get("reward", self._otherwise))


def _build_all(rewards: Mapping[str, Section]) -> dict[str, Reward]:
    if not rewards:
        raise ConfigError("rewards: got none; name at least one, as {name: {target: ..., args: ...}}")
    return {name: _build(name, section) for name, section in rewards.items()}


def _build(name: str, section: Section) -> Reward:
    unknown = sorted(set(section) - {"target", "args", "weight"})
    if unknown or "target" not in section:
        raise ConfigError(f"{name}: got {sorted(section)}; a part has target, args and, in a sum, weight")
    return build_reward(RewardConfig(target=section["target"], args=section.get("args") or {}), where=name)


def _joined(
    rewards: Mapping[str, Reward], groups: Sequence[Group], context: RewardContext, combine: Combine
) -> list[list[Score]]:
    answers = {name: list(reward.score_batch(groups, context)) for name, reward in rewards.items()}
    rows = []
    for g, group in enumerate(groups):
        for name, answer in answers.items():
            if len(answer[g]) != len(group.completions):
                raise ValueError(f"{name} returned {len(answer[g])} scores for {len(group.completions)}")
        columns = range(len(group.completions))
        rows.append([_join({name: a[g][k] for name, a in answers.items()}, combine) for k in columns])
    return rows


def _join(scores: Mapping[str, Score], combine: Combine) -> Score:
    failed = {name: score.error for name, score in scores.items() if score.error is not None}
    if failed:
        return Score(0.0, error="; ".join(f"{name}: {error}" for name, error in failed.items()))
    for kind in ("token_values", "token_advantages"):
        if judges := [name for name, score in scores.items() if getattr(score, kind)]:
            return Score(0.0, error=f"{judges[0]} gives {kind}: name it in `rewards` by itself")
    values = {name: score.value for name, score in scores.items()}
    inner = {f"{name}/{part}": v for name, score in scores.items() for part, v in score.parts.items()}
    return Score(combine(values), parts={**values, **inner})
