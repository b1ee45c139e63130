"""Rewards to loss."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlcore.config.checks import at_least, check, one_of, positive


@dataclass(frozen=True, kw_only=True)
class PTRConfig:
    """GRPO-PTR (EmotionThinker): which reward is trusted by which, and when it joins."""

    outcome: str | None = None
    """Name of the reward that tells right from wrong; null: no trust weight and no gate."""
    reasoning: str | None = None
    """Name of the reward that is trust-weighted and scheduled."""
    trust: bool = True
    """Weigh the reasoning reward of a group by its trust weight."""
    schedule: str = "progressive"
    """When the reasoning reward counts. `progressive`: from where the outcome has stabilised; `anneal`: from
    the start, times exp(-step / anneal_steps) (SophiaVL-R1); `constant`: always."""
    anneal_steps: float | None = None
    """T of `anneal`; null: train.num_steps."""
    threshold: float = 0.5
    """Mean outcome reward at which the gate may open."""
    window: int = 10
    """Steps over which the outcome is averaged."""
    max_spread: float = 0.1
    """The gate opens once the window's halves differ by no more than this (the outcome has stabilised)."""

    def __post_init__(self) -> None:
        one_of(self, "schedule", "progressive", "anneal", "constant")
        if self.anneal_steps is not None:
            positive(self, "anneal_steps")
        at_least(self, 1, "window")
        at_least(self, 0, "max_spread")


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """Rewards to advantages to loss; formulas and sources in docs/algorithms.md."""

    advantage: str = "grpo"
    """`grpo`, `dr_grpo`, `rloo`, `reinforce_pp`, `reinforce_pp_baseline` or `maxrl`."""
    std_eps: float = 1e-4
    """Added to what an estimator divides by. A larger one keeps groups whose rewards nearly agree, and differ
    by a reward model's noise alone, from counting as much as groups that tell right from wrong."""
    step_discount: float = 1.0
    """Where rewards judge the steps of an answer: by how much a step counts less for the tokens of the step
    before it. 1: all that follows counts in full; 0: a step's tokens answer for that step alone, which has
    the least noise where steps do not build on each other."""
    loss: str = "ppo"
    """Surrogate: `ppo` (clipped ratio of a token), `gspo` (of a sequence; wants bounds near 3e-4) or `cispo`
    (clipped weight, every token keeps its gradient)."""
    clip_low: float = 0.2
    """Ratios below 1 - clip_low are clipped; 1: there is no lower bound."""
    clip_high: float = 0.2
    """Ratios above 1 + clip_high are clipped."""
    clip_dual: float | None = None
    """Above 1: bounds the loss of a token with a negative advantage by this times the advantage (`ppo`)."""
    kl_coef: float = 0.04
    """0: no KL, and no reference is spawned."""
    kl_estimator: str = "k3"
    """`k1`, `k2` or `k3`. In the loss, k1's expected gradient is zero: use it in the reward."""
    kl_in: str = "loss"
    """`loss`, or `reward`: the rollout policy's KL of a sequence is subtracted from its reward."""
    loss_aggregation: str = "token"
    """`token`: mean over all completion tokens of the global batch; `sequence`: mean of sequence means;
    `constant`: sum over num_sequences * rollout.max_tokens (Dr.GRPO)."""
    entropy_coef: float = 0.0
    """Bonus on the policy's mean entropy, in nats a token."""
    correction: str = "none"
    """Weight for what rollout engine and learner compute differently, where the learner recomputes the old
    logprobs: `none`, `tis`, `icepop`, `sequence_tis` or `sequence_icepop`."""
    correction_low: float = 0.5
    """Ratios learner / rollout below are masked (icepop variants)."""
    correction_high: float = 2.0
    """Ratios above are masked (icepop variants) or held there (tis variants)."""
    overlong_buffer: int = 0
    """Tokens before rollout.max_tokens over which a length penalty grows to `overlong_penalty`; 0: none."""
    overlong_penalty: float = 1.0
    """Subtracted from the reward of a completion that reaches rollout.max_tokens."""
    mask_truncated: bool = False
    """Leave completions that were cut at rollout.max_tokens out of the update."""
    drop_groups_without_signal: bool = False
    """Leave groups whose rewards are all equal out of the update."""
    ptr: PTRConfig = field(default_factory=PTRConfig)

    def __post_init__(self) -> None:
        one_of(self, "advantage", "grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline", "maxrl")
        one_of(self, "loss", "ppo", "gspo", "cispo")
        one_of(self, "kl_estimator", "k1", "k2", "k3")
        one_of(self, "kl_in", "loss", "reward")
        one_of(self, "loss_aggregation", "token", "sequence", "constant")
        one_of(self, "correction", "none", "tis", "icepop", "sequence_tis", "sequence_icepop")
        check(0 <= self.step_discount <= 1, "step_discount", self.step_discount, "between 0 and 1")
        check(0 < self.clip_low <= 1, "clip_low", self.clip_low, "between 0 and 1")
        positive(self, "clip_high", "std_eps", "correction_high")
        at_least(self, 0, "kl_coef", "entropy_coef", "correction_low", "overlong_buffer", "overlong_penalty")
        high = self.correction_high
        check(self.correction_low < high, "correction_low", self.correction_low, f"below {high}")
        dual = self.clip_dual
        if dual is not None:
            check(self.loss == "ppo", "clip_dual", dual, f"null where algorithm.loss is {self.loss}")
            check(dual > 1, "clip_dual", dual, "above 1, or null")
