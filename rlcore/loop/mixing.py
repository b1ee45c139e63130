"""The way from the scores of groups to one reward per completion, under the schedule of the reasoning reward.

The schedule moves in `advance` alone, which the training loop calls once per step, after the step's mix. The
factor of a step is settled when the first of its groups is looked at: whether a group counts towards its
round, and the mix that is trained on, never disagree.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlcore.algorithms.ptr import MixedRewards, mix_rewards
from rlcore.algorithms.ptr_schedule import REWARD_SCHEDULES, Constant, RewardSchedule
from rlcore.config import RunConfig
from rlcore.config.targets import choice
from rlcore.errors import ConfigError
from rlcore.loop.scored import ScoredGroup, has_error, is_over_budget, is_truncated

_MIN_WINDOW, _WINDOWS_IN_A_RUN = 30, 20
"""Of a gate whose `algorithm.ptr.window` is null. Over 30 steps, a standard error is known well enough."""


class Mixer:
    """Mixes scores as `algorithm` and the rewards' weights say."""

    def __init__(self, config: RunConfig):
        self._config = config
        self.schedule = make_schedule(config)
        self._factors: dict[int, float] = {}
        """Factors of the steps that groups are there for."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `schedule.state_dict` returned: factors are settled anew."""
        self.schedule.load_state_dict(state)
        self._factors.clear()

    def advance(self, scored: Sequence[ScoredGroup], step: int) -> None:
        """Moves the schedule on by one step, by the mean outcome of the groups of `step`."""
        self._factors = {later: factor for later, factor in self._factors.items() if later > step}
        outcome = self._config.algorithm.ptr.outcome
        if outcome is None:
            return
        values = np.concatenate([one.values[outcome] for one in scored])
        known = values[np.isfinite(values)]
        self.schedule.observe(float(known.mean()) if known.size else float("nan"))

    def mix(self, scored: Sequence[ScoredGroup], step: int) -> MixedRewards:
        """Returns the reward of each completion at `step` (from 0).

        Answers that the update cannot use are masked: those that were cut at the token limit, with
        `algorithm.mask_truncated`; those over the learner's budget, where `learner.over_budget` is `drop`;
        those that their environment could not answer.
        """
        algorithm, rewards = self._config.algorithm, self._config.rewards
        names = list(scored[0].values)
        mixed = mix_rewards(
            {name: np.stack([one.values[name] for one in scored]) for name in names},
            {name: rewards[name].weight for name in names},
            outcome=algorithm.ptr.outcome,
            reasoning=algorithm.ptr.reasoning,
            trust=algorithm.ptr.trust,
            factor=self._factors.setdefault(step, self.schedule.factor(step)),
            token_values={
                name: [[score.token_values for score in one.scores[name]] for one in scored]
                for name in names
                if any(score.token_values for one in scored for score in one.scores[name])
            },
            token_advantages={
                name: [[score.token_advantages for score in one.scores[name]] for one in scored]
                for name in names
                if any(score.token_advantages for one in scored for score in one.scores[name])
            },
            decoupled=algorithm.advantage == "gdpo",
        )
        if self._config.rollout.environment.target:
            mixed = mixed.without(has_error(scored))
        if algorithm.mask_truncated:
            mixed = mixed.without(is_truncated(scored))
        if self._config.learner.over_budget == "drop":
            mixed = mixed.without(is_over_budget(scored, self._config.learner.micro_batch_tokens))
        return mixed

    def counts(self, scored: ScoredGroup, step: int) -> bool:
        """Says whether a group counts towards the round of `step`: always, unless groups without signal
        are dropped."""
        if not self._config.algorithm.drop_groups_without_signal:
            return True
        return bool(self.mix([scored], step).has_signal[0])


def closed_for_good(config: RunConfig) -> str | None:
    """Returns why the reasoning reward will never join in this run; None where it may."""
    ptr, window, num_steps = config.algorithm.ptr, gate_window(config), config.train.num_steps
    if ptr.schedule != "progressive" or ptr.outcome is None or ptr.reasoning is None or window < num_steps:
        return None
    return (
        f"algorithm.ptr.window is {window} and train.num_steps {num_steps}: the gate cannot open, and "
        f"rewards.{ptr.reasoning} never counts; set a shorter window, or algorithm.ptr.schedule: constant"
    )


def gate_window(config: RunConfig) -> int:
    """Returns the steps that a progressive gate looks at: `algorithm.ptr.window`, or a share of the run."""
    return config.algorithm.ptr.window or max(_MIN_WINDOW, config.train.num_steps // _WINDOWS_IN_A_RUN)


def make_schedule(config: RunConfig) -> RewardSchedule:
    """Builds the schedule that `algorithm.ptr.schedule` names; without an outcome reward there is none.

    Raises ConfigError where a class of your own asks for other settings, or lacks a method.
    """
    ptr = config.algorithm.ptr
    if ptr.outcome is None and ptr.schedule == "progressive":
        return Constant()
    build = choice(REWARD_SCHEDULES, ptr.schedule, where="algorithm.ptr.schedule")
    settings = {
        "threshold": ptr.threshold,
        "window": gate_window(config),
        "max_spread": ptr.max_spread,
        "anneal_steps": ptr.anneal_steps or config.train.num_steps,
    }
    wanted = inspect.signature(build).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in wanted.values())
    given = {name: value for name, value in settings.items() if takes_all or name in wanted}
    key = f"algorithm.ptr.schedule: {ptr.schedule}"
    try:
        schedule = build(**given)
    except TypeError as error:
        raise ConfigError(f"{key} may ask for {', '.join(settings)} alone: {error}") from error
    methods = ("factor", "observe", "state_dict", "load_state_dict")
    if missing := [name for name in methods if not callable(getattr(schedule, name, None))]:
        raise ConfigError(f"{key} lacks {', '.join(missing)} (rlcore.algorithms.ptr_schedule.RewardSchedule)")
    return schedule
