"""Settings of the learner, the reference and the way of weights to the engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rlcore.algorithms.schedule import LR_SCHEDULES
from rlcore.config.checks import at_least, between, check, one_of, positive, positive_amounts
from rlcore.config.io import MAY_CHANGE
from rlcore.config.resuming import IF_ACCEPTED
from rlcore.config.targets import choice
from rlcore.config.weight_media import Medium, medium_of


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) on linear layers."""

    rank: int = 0
    """Rank of the adapters; 0: none, every parameter that is not frozen is trained."""
    alpha: int = 32
    """An adapter's product is scaled by `alpha / rank`."""
    dropout: float = 0.0
    """Dropout on the adapters' input. Above 0 the learner's policy differs from the one that was sampled."""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Linear layers by the end of their name (`q_proj`, `layers.0.mlp.up_proj`); frozen ones get none."""
    also_train: tuple[str, ...] = ()
    """Parameters whose name contains one of these are trained beside the adapters, whole (a projector)."""
    push: str = "merged"
    """Weights that travel to the engines: the `merged` ones of the language model, or the `adapters` alone,
    which engines add to the weights of `model.path` (by shared_memory or gloo)."""

    def __post_init__(self) -> None:
        at_least(self, 0, "rank")
        positive(self, "alpha")
        check(0 <= self.dropout < 1, "dropout", self.dropout, "at least 0 and below 1")
        check(bool(self.target_modules), "target_modules", self.target_modules, "at least one name")
        one_of(self, "push", "merged", "adapters")


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """Ranks that update the policy, their optimizer and their memory (docs/explanation/learner.md)."""

    num_ranks: int = field(default=1, metadata=MAY_CHANGE)
    """Ranks, which share each batch and, with `zero_stage`, the state."""
    num_cpus: float = field(default=1.0, metadata=MAY_CHANGE)
    """CPUs that Ray sets aside for a rank."""
    num_gpus: float = field(default=0.0, metadata=MAY_CHANGE)
    """GPUs of a rank: 1, or 0 on CPUs."""
    resources: Mapping[str, float] = field(default_factory=dict, metadata=MAY_CHANGE)
    """Ray's custom resources of a rank, for instance `{accelerator_type:H100: 0.001}`, which Ray gives
    every node with such a GPU."""
    ranks_per_node: int | None = field(default=None, metadata=MAY_CHANGE)
    """Ranks in a row that share a node, or the run does not start; null: Ray packs ranks where it can."""
    zero_stage: int = field(default=2, metadata=MAY_CHANGE)
    """State that the ranks share out: 0 nothing, 1 the optimizer's, 2 gradients too, 3 parameters too."""
    offload_optimizer: str = field(default="none", metadata=MAY_CHANGE)
    """`cpu` keeps the optimizer's state and update in main memory (`zero_stage` 1 to 3)."""
    offload_parameters: str = field(default="none", metadata=MAY_CHANGE)
    """`cpu` keeps the parameters in main memory between their uses (`zero_stage` 3)."""
    activation_checkpointing: bool = field(default=False, metadata=MAY_CHANGE)
    """Decoder layers keep their input alone and are computed again in the backward pass."""
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    lr: float = field(default=1e-6, metadata=IF_ACCEPTED)
    """Highest learning rate."""
    warmup_steps: int = field(default=0, metadata=IF_ACCEPTED)
    """Optimizer steps over which the learning rate rises from 0 in a line."""
    lr_schedule: str = field(default="constant", metadata=IF_ACCEPTED)
    """Name of the learning-rate schedule over `train.num_steps`, in `rlcore.algorithms.schedule.LR_SCHEDULES`
    (`constant`, `linear`, `cosine`), or `module:name`."""
    weight_decay: float = field(default=0.0, metadata=IF_ACCEPTED)
    """AdamW's decay."""
    betas: tuple[float, float] = field(default=(0.9, 0.95), metadata=IF_ACCEPTED)
    """Adam's decay of its first and second moment."""
    max_grad_norm: float = field(default=1.0, metadata=IF_ACCEPTED)
    """Norm that a step's gradient is clipped to."""
    precision: str | None = None
    """Precision of learner and reference: `float32`; `autocast`, float32 weights with bfloat16 products;
    `bf16`, bfloat16 weights with float32 master copies (`zero_stage` 2 or 3); null: `autocast` on GPUs, else
    `float32`."""
    micro_batch_tokens: int = field(default=8192, metadata=MAY_CHANGE)
    """Tokens in one forward pass: each prompt once, and its completions."""
    micro_batch_audio_frames: int = field(default=96_000, metadata=MAY_CHANGE)
    """Mel frames in one forward pass, where the audio tower is part of it (32 windows of 30 s)."""
    over_budget: str = field(default="error", metadata=IF_ACCEPTED)
    """Fate of a sample that alone exceeds `micro_batch_tokens`: `error` ends the run, `drop` leaves the
    sample out of the batch and counts it (`dropped_samples`)."""
    num_mini_batches: int = 1
    """Parts that a step's batch is cut into, by prompts, with an optimizer step for each."""
    updates_per_batch: int = 1
    """Passes over a step's batch."""
    recompute_logprobs: bool | None = field(default=None, metadata=IF_ACCEPTED)
    """True: the old logprobs are the learner's own before the first update on a batch (its first forward pass
    gives them; later mini-batches cost one of their own); false: the rollout's; null: the learner's where
    `steps_per_batch` is above 1."""
    max_skipped_steps: int = field(default=5, metadata=IF_ACCEPTED)
    """Optimizer steps in a row that may be skipped for a loss or gradient that is not finite; one more ends
    the run, after a checkpoint."""
    timeout_s: float = field(default=600.0, metadata=MAY_CHANGE)
    """Seconds that a call to the learner, and each of its collectives, may take."""
    max_restarts: int = field(default=3, metadata=MAY_CHANGE)
    """Times that all ranks may be started anew in a run, because one died or hung; one more ends the run."""

    def check_ranks_apart(self, key: str, beside: float = 0.0) -> None:
        """Refuses shares of a GPU so small that Ray puts two ranks on one, which NCCL refuses.

        Args:
            key: configuration path of this section, for errors.
            beside: share of the engine that is in a rank's bundle (`cluster.colocate`).
        """
        allowed = f"above {0.5 - beside:g} with {key}.num_ranks {self.num_ranks}, so that no two share a GPU"
        if self.num_ranks > 1 and self.num_gpus > 0:
            check(self.num_gpus + beside > 0.5, f"{key}.num_gpus", self.num_gpus, allowed)

    @property
    def own_precision(self) -> str:
        """Precision of learner and reference: `precision`, or what null stands for."""
        return self.precision or ("autocast" if self.num_gpus > 0 else "float32")

    @property
    def weight_dtype(self) -> str:
        """Dtype of the weights that the forward pass reads."""
        return "bfloat16" if self.own_precision == "bf16" else "float32"

    @property
    def compute_dtype(self) -> str:
        """Dtype of matrix products."""
        return "float32" if self.own_precision == "float32" else "bfloat16"

    @property
    def recomputes_logprobs(self) -> bool:
        """Tells whether the old logprobs are the learner's own (`recompute_logprobs`)."""
        return self.steps_per_batch > 1 if self.recompute_logprobs is None else self.recompute_logprobs

    @property
    def steps_per_batch(self) -> int:
        """Optimizer steps on a batch: `updates_per_batch` x `num_mini_batches`."""
        return self.updates_per_batch * self.num_mini_batches

    def __post_init__(self) -> None:
        at_least(self, 1, "num_ranks", "micro_batch_tokens", "updates_per_batch", "num_mini_batches")
        size = self.ranks_per_node
        divides = size is None or (size >= 1 and self.num_ranks % size == 0)
        check(divides, "ranks_per_node", size, f"a divisor of num_ranks ({self.num_ranks}), or null")
        positive_amounts(self, "resources")
        at_least(self, 1, "micro_batch_audio_frames")
        at_least(self, 0, "num_cpus", "lr", "warmup_steps", "weight_decay", "max_skipped_steps")
        between(self, 0, 1, "num_gpus")
        at_least(self, 0, "max_restarts")
        one_of(self, "zero_stage", 0, 1, 2, 3)
        for name, lowest in (("offload_optimizer", 1), ("offload_parameters", 3)):
            one_of(self, name, "none", "cpu")
            fits = getattr(self, name) == "none" or self.zero_stage >= lowest
            check(
                fits, name, getattr(self, name), f"none below zero_stage {lowest} (it is {self.zero_stage})"
            )
        one_of(self, "over_budget", "error", "drop")
        choice(LR_SCHEDULES, self.lr_schedule, where="lr_schedule")
        if self.precision is not None:
            one_of(self, "precision", "float32", "autocast", "bf16")
        check(
            self.precision != "bf16" or self.zero_stage >= 2,
            "precision",
            self.precision,
            f"float32 or autocast below zero_stage 2 (it is {self.zero_stage}), where DeepSpeed would add up "
            "gradients in bfloat16",
        )
        positive(self, "timeout_s")
        check(self.max_grad_norm > 0, "max_grad_norm", self.max_grad_norm, "above 0; .inf clips nothing")
        betas_ok = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        check(betas_ok, "betas", self.betas, "two numbers, each at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """The policy that the KL is measured from, spawned where `algorithm.kl_coef` is above 0: the starting
    one, unless `sync_every` moves it."""

    num_replicas: int = field(default=1, metadata=MAY_CHANGE)
    """Replicas of the reference; 0: none, the learner computes the reference's logprobs with its adapters
    switched off (`learner.lora`)."""
    num_cpus: float = field(default=1.0, metadata=MAY_CHANGE)
    """CPUs that Ray sets aside for a replica."""
    num_gpus: float = field(default=0.0, metadata=MAY_CHANGE)
    """GPUs of a replica; below 1 it shares one."""
    resources: Mapping[str, float] = field(default_factory=dict, metadata=MAY_CHANGE)
    """Ray's custom resources of a replica."""
    micro_batch_tokens: int = field(default=16384, metadata=MAY_CHANGE)
    """Tokens in one forward pass: each prompt once, and its completions."""
    timeout_s: float = field(default=600.0, metadata=MAY_CHANGE)
    """Seconds that the log-probabilities of some groups may take."""
    max_restarts: int = field(default=3, metadata=MAY_CHANGE)
    """Replicas that may be replaced in a run, because they died or hung; one more ends it."""
    sync_every: int | None = field(default=None, metadata=IF_ACCEPTED)
    """Steps after which the reference takes on weights of the policy, again and again; null: never."""
    sync_weight: float = field(default=1.0, metadata=IF_ACCEPTED)
    """Share of the policy in the new reference; the rest is the old one's (below 1: a moving average)."""

    def __post_init__(self) -> None:
        at_least(self, 1, "micro_batch_tokens")
        if self.sync_every is not None:
            at_least(self, 1, "sync_every")
        check(0 < self.sync_weight <= 1, "sync_weight", self.sync_weight, "above 0 and at most 1")
        positive_amounts(self, "resources")
        at_least(self, 0, "num_replicas", "num_cpus", "max_restarts")
        between(self, 0, 1, "num_gpus")
        positive(self, "timeout_s")


@dataclass(frozen=True, kw_only=True)
class WeightSyncConfig:
    """Settings of the way from the learner's weights to the rollout engines (docs/explanation/rollout.md)."""

    backend: str = "shared_memory"
    """`shared_memory` (one machine), `gloo` (several, over TCP), `nccl` (between GPUs), `ipc` (learner and
    rollout on the same GPUs), or `module:NAME` of a medium of your own."""
    bucket_mb: float = 2.0
    """MB gathered, sent and loaded at a time; three buckets are under way, and best fit the processor's cache
    together. A larger tensor is cut; a smaller one stays whole."""
    timeout_s: float = 120.0
    """Deadline of a push, at either end."""
    verify_first_push: bool = True
    """Whether a new run compares, before it trains, what its first push left in every engine with what vLLM
    loaded from `model.path`, parameter by parameter: the learner's weights are the same then."""

    def __post_init__(self) -> None:
        medium_of(self.backend, key="backend")
        positive(self, "bucket_mb", "timeout_s")

    @property
    def medium(self) -> Medium:
        """The medium that `backend` names."""
        return medium_of(self.backend)

    @property
    def bucket_bytes(self) -> int:
        """Bytes of `bucket_mb`."""
        return int(self.bucket_mb * 2**20)
