"""Settings of training from files, without rollouts."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlcore.config.checks import at_least, between, check, one_of, positive, without_tilde
from rlcore.config.io import MAY_CHANGE
from rlcore.config.learner import LearnerConfig
from rlcore.config.model import ModelConfig, TargetConfig
from rlcore.config.train import ClusterConfig


@dataclass(frozen=True, kw_only=True)
class OfflineConfig:
    """One Ray Train job whose workers are ranks of the learner's engine."""

    num_steps: int = 400
    """Optimizer steps."""
    batch_size: int = 48
    """Examples in the global batch."""
    learner: LearnerConfig = field(default_factory=lambda: LearnerConfig(lr=1e-5, lr_schedule="cosine"))
    """Ranks, ZeRO stage, optimizer and schedule (over `num_steps`)."""
    checkpoint_every: int = 200
    """Steps between two checkpoints."""
    max_failures: int = field(default=1, metadata=MAY_CHANGE)
    """Restarts from the last checkpoint after a worker's death."""
    min_ranks: int = field(default=0, metadata=MAY_CHANGE)
    """Fewest ranks that the job runs with while the cluster has no room for `learner.num_ranks`; it grows
    when there is room again. 0: always `learner.num_ranks`."""

    def __post_init__(self) -> None:
        at_least(self, 1, "num_steps", "batch_size", "checkpoint_every")
        ranks, size = self.learner.num_ranks, self.batch_size
        check(0 <= self.min_ranks <= ranks, "min_ranks", self.min_ranks, f"0 to learner.num_ranks ({ranks})")
        self.learner.check_ranks_apart("learner")
        check(size % ranks == 0, "batch_size", size, f"a multiple of learner.num_ranks ({ranks})")


@dataclass(frozen=True, kw_only=True)
class PreferConfig:
    """Training a policy or a reward model on preferences, as `rlcore prefer` reads it."""

    run_dir: str = "runs/prefer"
    """Folder of the job."""
    seed: int = 0
    """Seed of the order of the rows, and of adapters."""
    model: ModelConfig = field(default_factory=ModelConfig)
    task: TargetConfig = field(default_factory=lambda: TargetConfig(target="rlcore.tasks:Preferences"))
    """Source of the rows: pairs (`chosen`, `rejected`) or labelled answers (`answer`, `label`)."""
    loss: str = "dpo"
    """Of a policy: `dpo` or `ipo`, of pairs, or `kto`, of labelled answers. Of a reward model:
    `bradley_terry`, of pairs, or `pointwise`, of labelled answers. A pair is also two of these."""
    beta: float = 0.1
    """Factor on log(policy / reference): the higher, the nearer the policy stays to the reference."""
    label_smoothing: float = 0.0
    """Share of pairs that are taken to be labelled the wrong way round; of `dpo` alone."""
    desirable_weight: float = 1.0
    """Weight of the desirable answers, of `kto` alone."""
    undesirable_weight: float = 1.0
    """Weight of the undesirable answers, of `kto` alone."""
    question: str = "Is this answer good? Write 1 for yes, 0 for no."
    """Text that a reward model is asked after each answer; it answers 1 or 0."""
    train: OfflineConfig = field(
        default_factory=lambda: OfflineConfig(learner=LearnerConfig(lr=1e-6, lr_schedule="cosine"))
    )
    cluster: ClusterConfig = field(default_factory=ClusterConfig, metadata=MAY_CHANGE)

    @property
    def is_of_pairs(self) -> bool:
        """Says whether `loss` is of pairs, and not of labelled answers."""
        return self.loss in ("dpo", "ipo", "bradley_terry")

    @property
    def trains_reward(self) -> bool:
        """Says whether `loss` makes a reward model, and not a policy."""
        return self.loss in ("bradley_terry", "pointwise")

    def __post_init__(self) -> None:
        without_tilde(self, "run_dir")
        at_least(self, 0, "seed")
        one_of(self, "loss", "dpo", "ipo", "kto", "bradley_terry", "pointwise")
        positive(self, "beta", "desirable_weight", "undesirable_weight")
        smoothing = self.label_smoothing
        check(0 <= smoothing < 0.5, "label_smoothing", smoothing, "at least 0 and below 0.5")
        is_dpo = self.loss == "dpo"
        check(is_dpo or smoothing == 0, "label_smoothing", smoothing, f"0 where loss is {self.loss}")
        between(self, 0, 2**63 - 1, "seed")
