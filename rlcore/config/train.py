"""Settings of the loop and of the cluster that runs it."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlcore.config.checks import at_least, between, one_of, positive
from rlcore.config.io import MAY_CHANGE
from rlcore.config.job import JobConfig
from rlcore.config.resuming import IS_RECORDED


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length and rhythm of the training loop."""

    num_steps: int = field(default=100, metadata=IS_RECORDED)
    """Training steps: rollout, rewards, update, push."""
    prompts_per_step: int = 16
    """Prompts, hence groups, of a step."""
    staleness: int = 0
    """Steps that rollouts may run ahead of updates. 0: they take turns; 1: the next rollout goes on during
    an update; more: a longer queue. Completions that are being written take new weights as they come."""
    groups_per_score: int = 4
    """Groups that rewards and reference are given at a time, as groups finish."""
    oversample: float = 0.0
    """Share of prompts generated beyond `prompts_per_step`: the first `prompts_per_step` groups to finish
    make the step, the others are cancelled."""
    max_replaced: int = 0
    """Prompts of a step that may be generated in the place of groups without signal, under
    `algorithm.drop_groups_without_signal`; 0: such groups leave the batch smaller."""
    max_logprob_diff: float | None = None
    """Alarm threshold on `logprob_max_diff`, the largest difference between rollout and learner on one token
    that both computed with the same weights; null: none."""
    on_logprob_diff: str = "warn"
    """Reaction to a difference above `max_logprob_diff`: `warn` or `abort`."""
    eval_every: int = field(default=0, metadata=MAY_CHANGE)
    """Steps between evaluations; 0: only before and after."""
    checkpoint_every: int = field(default=0, metadata=MAY_CHANGE)
    """Steps between checkpoints; 0: only at the end and on a signal."""
    rolling_every: int = field(default=50, metadata=MAY_CHANGE)
    """Steps between rolling checkpoints, of which only the newest stays: where a learner rank or the run
    dies, so many steps are done again at most; 0: none."""
    max_eval_prompts: int | None = None
    """Prompts of the split `eval` that an evaluation asks, the first ones; null: all."""

    def __post_init__(self) -> None:
        at_least(self, 0, "num_steps", "eval_every", "checkpoint_every", "rolling_every", "max_replaced")
        at_least(self, 1, "groups_per_score")
        # Past these a round would not even be handed out in time.
        between(self, 1, 1_000_000, "prompts_per_step")
        between(self, 0, 10, "oversample")
        between(self, 0, 100, "staleness")
        if self.max_logprob_diff is not None:
            positive(self, "max_logprob_diff")
        one_of(self, "on_logprob_diff", "warn", "abort")
        if self.max_eval_prompts is not None:
            at_least(self, 1, "max_eval_prompts")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """The Ray cluster that a run joins or starts."""

    address: str | None = None
    """Ray address; `None` joins the job's cluster where there is one, else starts a local one."""
    num_cpus: float | None = None
    """CPUs of a local cluster; `None`: those of this machine."""
    colocate: bool = False
    """Learner rank i and rollout replica i share one bundle, hence its GPU; the engine sleeps during an
    update and gives its GPU memory back."""
    log_to_driver: bool = False
    """Shows the actors' own output in the terminal too; the output always lies in Ray's session folder."""
    placement_timeout_s: float = 30.0
    """Seconds within which Ray must have room for all actors."""
    startup_timeout_s: float = 300.0
    """Seconds within which an actor must have loaded its model."""
    job: JobConfig = field(default_factory=JobConfig)

    def __post_init__(self) -> None:
        positive(self, "placement_timeout_s", "startup_timeout_s")
        if self.num_cpus is not None:
            positive(self, "num_cpus")
