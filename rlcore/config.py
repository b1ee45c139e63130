"""The configuration of a training run: frozen keyword-only dataclasses, defaults here and nowhere else.

Validation is in each class's `__post_init__`; `load_config` merges a YAML file and `key=value` overrides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The policy to train, and how its media reach it."""

    path: str = "???"
    """Folder or hub id of a Hugging Face checkpoint with its processor."""
    dtype: str = "float32"
    """Rollout and reference dtype: `float32` or `bfloat16`."""
    freeze: tuple[str, ...] = ("audio_tower", "multi_modal_projector", "visual")
    """Parameters whose name contains one of these are not trained."""
    media: str = "embeds"
    """`embeds`: the frozen tower runs once per prompt and vLLM takes its output; `raw`: vLLM runs the tower."""
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """A class of the user's, by name, with its arguments."""

    target: str = "???"
    """`package.module:Class`"""
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    num_replicas: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    samples_per_prompt: int = 8
    """K, the group size."""
    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    engine: Mapping[str, Any] = field(default_factory=dict)
    """Further vLLM engine arguments (`max_model_len`, `gpu_memory_utilization`, `tensor_parallel_size`, ...)."""
    timeout_s: float = 600.0


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    target: str = "???"
    args: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    replicas: int = 1
    num_cpus: float = 0.1
    num_gpus: float = 0.0
    timeout_s: float = 120.0
    on_error: str = "abort"
    """`abort` the run, `mask` the completion's advantage, or a number to use as its value."""


@dataclass(frozen=True, kw_only=True)
class PTRConfig:
    """GRPO-PTR (EmotionThinker): which reward is trusted by which, and when it joins."""

    outcome: str | None = None
    """Name of the reward that tells right from wrong; `None` switches trust and gate off."""
    reasoning: str | None = None
    """Name of the reward that is trust-weighted and gated."""
    trust: bool = True
    progressive: bool = True
    threshold: float = 0.5
    """Mean outcome reward at which the gate may open."""
    window: int = 10
    """Steps over which the outcome is averaged."""
    max_spread: float = 0.1
    """The gate opens once the window's halves differ by no more than this (the outcome has stabilised)."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    normalize_std: bool = True
    """GRPO divides group-centred rewards by the group's standard deviation; Dr.GRPO does not."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coef: float = 0.04
    loss_aggregation: str = "token"
    """`token`: mean over all completion tokens of the global batch; `sequence`: mean of sequence means."""
    ptr: PTRConfig = field(default_factory=PTRConfig)


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    num_ranks: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    zero_stage: int = 2
    lr: float = 1e-6
    warmup_steps: int = 0
    lr_schedule: str = "constant"
    """`constant`, `linear` or `cosine`, over `train.num_steps`."""
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    max_grad_norm: float = 1.0
    autocast: str = "none"
    """`none` or `bfloat16` (autocast over fp32 weights)."""
    micro_batch_tokens: int = 8192
    """Prompt and completion tokens, padding included, in one forward pass."""
    updates_per_batch: int = 1
    timeout_s: float = 600.0


@dataclass(frozen=True, kw_only=True)
class WeightSyncConfig:
    backend: str = "shared_memory"
    timeout_s: float = 120.0


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    num_steps: int = 100
    prompts_per_step: int = 16
    eval_every: int = 0
    """Steps between evaluations; 0: only before and after."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: only at the end and on a signal."""
    max_eval_prompts: int | None = None


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    address: str | None = None
    """Ray address; `None` joins the job's cluster where there is one, else starts a local one."""
    num_cpus: float | None = None
    """CPUs of a local cluster; `None`: those of this machine."""
    placement_timeout_s: float = 30.0
    startup_timeout_s: float = 300.0


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    run_dir: str = "runs/run"
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    task: TargetConfig = field(default_factory=TargetConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    rewards: dict[str, RewardConfig] = field(default_factory=dict)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    weight_sync: WeightSyncConfig = field(default_factory=WeightSyncConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
