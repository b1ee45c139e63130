"""Rewards to loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

from rlcore.algorithms.advantage import ADVANTAGES, Advantage, pass_at_k
from rlcore.algorithms.aggregation import AGGREGATIONS
from rlcore.algorithms.importance import CORRECTIONS, Bounds
from rlcore.algorithms.kl import KL_ESTIMATORS, KLEstimator
from rlcore.algorithms.loss import LossSettings
from rlcore.algorithms.ptr_schedule import REWARD_SCHEDULES
from rlcore.algorithms.surrogate import SURROGATES, Clip
from rlcore.config.checks import at_least, between, check, is_number, one_of, positive
from rlcore.config.resuming import IS_FIXED
from rlcore.config.targets import choice


@dataclass(frozen=True, kw_only=True)
class PTRConfig:
    """Settings of GRPO-PTR (EmotionThinker, arXiv 2601.15668): which reward is trusted by which, and when the
    reasoning reward joins."""

    outcome: str | None = field(default=None, metadata=IS_FIXED)
    """Name of the reward that tells right from wrong; null means no trust weight and no gate."""
    reasoning: str | None = None
    """Name of the reward that is trust-weighted and scheduled."""
    trust: bool = True
    """Weighs the reasoning reward of a group by the group's trust weight."""
    schedule: str = field(default="progressive", metadata=IS_FIXED)
    """Name of the reasoning reward's schedule, in `rlcore.algorithms.ptr_schedule.REWARD_SCHEDULES`, or
    `module:Class`. `progressive` waits until the outcome has stabilised. `anneal` fades by
    exp(-step / anneal_steps) (SophiaVL-R1). `constant` counts always."""
    anneal_steps: float | None = None
    """Steps T over which `anneal` fades; null takes train.num_steps."""
    threshold: float = 0.5
    """Mean outcome reward at which the gate may open."""
    window: int | None = None
    """Number of steps whose outcomes the gate looks at; null takes a twentieth of train.num_steps, at least
    30."""
    max_spread: float = 0.15
    """Rise or fall of the outcome over the window up to which it counts as stable."""

    def __post_init__(self) -> None:
        choice(REWARD_SCHEDULES, self.schedule, where="schedule")
        if self.anneal_steps is not None:
            positive(self, "anneal_steps")
        check(is_number(self.threshold), "threshold", self.threshold, "a finite number")
        both = self.outcome is not None and self.outcome == self.reasoning
        check(not both, "reasoning", self.reasoning, "another reward than algorithm.ptr.outcome")
        if self.window is not None:
            at_least(self, 3, "window")
        at_least(self, 0, "max_spread")


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """Holds the settings of the way from rewards over advantages to the loss.

    Formulas and sources are in docs/reference/algorithms.md.

    Where a key names a function, `module:name` names a function of your own. The module
    is imported where the configuration is read, and in every process that uses the function.
    """

    advantage: str = "grpo"
    """Name of the advantage estimator, in `rlcore.algorithms.advantage.ADVANTAGES` (for instance `grpo`), or
    `module:name`. `gdpo` normalises each reward by itself before the weighted sum; all others normalise the
    sum."""
    pass_k: int = 4
    """Number of samples k of which `pass_at_k` rewards the best; below rollout.samples_per_prompt."""
    std_eps: float = 1e-4
    """Number that is added to what an estimator divides by. A larger one keeps groups whose rewards differ by
    a reward model's noise alone from counting as much as groups that tell right from wrong."""
    step_discount: float = 1.0
    """Factor by which a judged step counts less for the tokens of the step before. With 1, all that follows
    counts in full. With 0, a step's tokens answer for that step alone, which has the least noise where steps
    do not build on each other."""
    loss: str = "ppo"
    """Name of the surrogate, in `rlcore.algorithms.surrogate.SURROGATES`, or `module:name`. `ppo` clips the
    ratio of a token, `gspo` that of a sequence (and needs bounds near 3e-4). `cispo` clips the weight, so
    that every token keeps its gradient. `sapo` clips nothing: the gradient of a token fades."""
    clip_low: float = 0.2
    """Ratios below 1 - clip_low are clipped; 1 sets no lower bound."""
    clip_high: float = 0.2
    """Ratios above 1 + clip_high are clipped."""
    clip_dual: float | None = None
    """Factor above 1: bounds the loss of a token with a negative advantage by this times the advantage. Only
    `ppo`, or a surrogate of your own, takes one."""
    clip_cov: float = 0.0
    """Share of a batch's tokens that get no gradient because they lower the entropy most (Clip-Cov); 0 sets
    none."""
    clip_cov_bounds: tuple[float, float] = (1.0, 5.0)
    """Covariances of log-probability and advantage between which `clip_cov` draws its tokens."""
    kl_cov: float = 0.0
    """Share of a batch's tokens that are held near the old policy because they lower the entropy most
    (KL-Cov); 0 sets none."""
    kl_cov_coef: float = 1.0
    """Factor on |log(policy / old policy)| of the tokens of `kl_cov`."""
    gate: tuple[float, float] = (1.0, 1.05)
    """Temperatures at which `sapo` fades a token as its ratio leaves 1: where the advantage is above 0, and
    elsewhere."""
    kl_coef: float = 0.04
    """Factor on the KL to the reference; 0 means no KL, and no reference is spawned."""
    kl_estimator: str = "k3"
    """Name of the KL estimator, in `rlcore.algorithms.kl.KL_ESTIMATORS`, or `module:name`. In the loss, the
    expected gradient of `k1` is zero: use `k1` in the reward. `k3_capped` bounds what one token weighs."""
    kl_in: str = "loss"
    """Place of the KL: `loss`, or `reward`, where the rollout policy's KL of a sequence is subtracted from
    the sequence's reward."""
    loss_aggregation: str = "token"
    """Name of the aggregation, in `rlcore.algorithms.aggregation.AGGREGATIONS`, or `module:name`. `token` is
    the mean over all completion tokens of the global batch, `sequence` the mean of sequence means. `constant`
    is the sum over num_sequences * rollout.max_tokens (Dr. GRPO)."""
    entropy_coef: float = 0.0
    """Bonus on the policy's mean entropy, in nats per token."""
    correction: str = "none"
    """Name of the correction rule, in `rlcore.algorithms.importance.CORRECTIONS`, or `module:name`. The rule
    weighs in what rollout engine and learner compute differently, where the learner recomputes the old
    log-probabilities."""
    correction_low: float = 0.5
    """Ratios learner / rollout below this are masked (by `icepop`, `sequence_icepop` and
    `geometric_mask`, which needs bounds near 0.999 and 1.001)."""
    correction_high: float = 2.0
    """Ratios learner / rollout above this are masked (by `icepop`, `sequence_icepop` and `geometric_mask`) or
    held there (by `tis` and `sequence_tis`, and for the KL in the loss)."""
    off_policy_threshold: float | None = None
    """Mean log(rollout / policy) over a sequence, in nats per token, above which its tokens with a negative
    advantage are left out of the surrogate; null leaves none out."""
    overlong_buffer: int = 0
    """Number of tokens before rollout.max_tokens over which a length penalty grows to `overlong_penalty`; 0
    sets no penalty."""
    overlong_penalty: float = 1.0
    """Penalty that is subtracted from the reward of a completion that reaches rollout.max_tokens."""
    mask_truncated: bool = False
    """Leaves completions that were cut at rollout.max_tokens out of the update."""
    drop_groups_without_signal: bool = False
    """Leaves groups whose rewards are all equal out of the update."""
    ptr: PTRConfig = field(default_factory=PTRConfig)

    def __post_init__(self) -> None:
        choice(ADVANTAGES, self.advantage, where="advantage")
        choice(SURROGATES, self.loss, where="loss")
        choice(AGGREGATIONS, self.loss_aggregation, where="loss_aggregation")
        choice(CORRECTIONS, self.correction, where="correction")
        choice(KL_ESTIMATORS, self.kl_estimator, where="kl_estimator")
        one_of(self, "kl_in", "loss", "reward")
        check(0 <= self.step_discount <= 1, "step_discount", self.step_discount, "between 0 and 1")
        check(0 < self.clip_low <= 1, "clip_low", self.clip_low, "between 0 and 1")
        positive(self, "std_eps")
        at_least(self, 1, "pass_k")
        between(self, 0, 1, "clip_cov", "kl_cov")
        low, high = self.clip_cov_bounds
        check(low < high, "clip_cov_bounds", self.clip_cov_bounds, "a lower bound and one above it")
        for temperature in self.gate:
            fades = 0 < temperature < math.inf
            check(fades, "gate", self.gate, "two finite numbers above 0")
        if self.off_policy_threshold is not None:
            positive(self, "off_policy_threshold")
        for name in ("clip_high", "correction_high"):  # .inf sets no bound
            check(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        at_least(self, 0, "kl_cov_coef")
        at_least(self, 0, "kl_coef", "entropy_coef", "correction_low", "overlong_buffer", "overlong_penalty")
        # A penalty is no reward with a weight of its own: normalised, its size would be lost.
        apart = "where algorithm.advantage is gdpo, which normalises each reward by itself"
        is_gdpo = self.advantage == "gdpo"
        check(not is_gdpo or self.kl_in == "loss", "kl_in", self.kl_in, f"loss {apart}")
        buffer = self.overlong_buffer
        check(not is_gdpo or buffer == 0, "overlong_buffer", buffer, f"0 {apart}: make length a reward")
        high = self.correction_high
        check(self.correction_low < high, "correction_low", self.correction_low, f"below {high}")
        dual = self.clip_dual
        if dual is not None:
            knows_it = self.loss == "ppo" or self.loss not in SURROGATES
            check(knows_it, "clip_dual", dual, f"null where algorithm.loss is {self.loss}")
            check(dual > 1, "clip_dual", dual, "above 1, or null")

    @property
    def advantage_estimator(self) -> Advantage:
        """Returns the function that `advantage` names."""
        estimator = choice(ADVANTAGES, self.advantage, where="algorithm.advantage")
        return partial(pass_at_k, k=self.pass_k) if estimator is pass_at_k else estimator

    @property
    def kl_function(self) -> KLEstimator:
        """Returns the function that `kl_estimator` names."""
        return choice(KL_ESTIMATORS, self.kl_estimator, where="algorithm.kl_estimator")

    @property
    def loss_settings(self) -> LossSettings:
        """Returns the settings of the policy loss. A KL in the reward is only measured in the loss."""
        return LossSettings(
            surrogate=choice(SURROGATES, self.loss, where="algorithm.loss"),
            clip=Clip(low=self.clip_low, high=self.clip_high, dual=self.clip_dual, gate=self.gate),
            correction=choice(CORRECTIONS, self.correction, where="algorithm.correction"),
            bounds=Bounds(low=self.correction_low, high=self.correction_high),
            off_policy_threshold=self.off_policy_threshold,
            aggregation=choice(AGGREGATIONS, self.loss_aggregation, where="algorithm.loss_aggregation"),
            kl_estimator=self.kl_function,
            kl_coef=self.kl_coef if self.kl_in == "loss" else 0.0,
            entropy_coef=self.entropy_coef,
            kl_cov_coef=self.kl_cov_coef,
        )
