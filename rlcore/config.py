"""The configuration of a training run: frozen keyword-only dataclasses, defaults here and nowhere else.

Each class validates itself in `__post_init__`; `load_config` merges YAML files and `key=value` overrides
into these or any other frozen dataclasses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, overload

from rlcore import config_io
from rlcore.config_io import check

T = TypeVar("T")

_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_REWARD = re.compile(rf"{_TARGET.pattern}|[A-Za-z_][\w.-]*")
MISSING = "???"
"""Default of a key that must be set."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The policy to train, and how its media reach it."""

    path: str = MISSING
    """Folder or hub id of a Hugging Face checkpoint with its processor."""
    dtype: str = "float32"
    """Rollout and reference dtype: `float32` or `bfloat16`."""
    freeze: tuple[str, ...] = ("audio_tower", "multi_modal_projector", "visual")
    """Parameters whose name contains one of these are not trained. Names of encoders and projectors of any
    known family may be missing from the model at hand; any other pattern must match."""
    media: str = "embeds"
    """`embeds`: the frozen tower runs once a prompt and vLLM takes its output; `raw`: vLLM runs the tower."""
    media_cache: str | None = None
    """Folder that keeps the frozen tower's embeddings from run to run, by content and weights."""
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        _one_of(self, "dtype", "float32", "bfloat16")
        _one_of(self, "media", "embeds", "raw")


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """A class of the user's, by name, with its arguments."""

    target: str = MISSING
    """`package.module:Class`"""
    args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_target(self)


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
    """Further vLLM engine arguments (`max_model_len`, `gpu_memory_utilization`, `tensor_parallel_size`)."""
    timeout_s: float = 600.0

    @property
    def workers_per_engine(self) -> int:
        """vLLM worker processes of one engine."""
        sizes = (self.engine.get(f"{kind}_parallel_size", 1) for kind in ("tensor", "pipeline"))
        return math.prod(sizes)

    def __post_init__(self) -> None:
        _at_least(self, 1, "num_replicas", "samples_per_prompt", "max_tokens")
        _at_least(self, 0, "num_cpus", "num_gpus", "temperature")
        check(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        _positive(self, "timeout_s")


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """One reward in actors of its own (docs/rewards.md)."""

    target: str = MISSING
    """`package.module:Class`, `package.module:function`, or the name of an installed package's entry point in
    the group `rlcore.rewards`."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Of the class's constructor, or of the function beside what it is called with."""
    weight: float = 1.0
    replicas: int = 1
    num_cpus: float = 0.1
    num_gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    """Ray's custom resources of a replica, for instance `{judge_node: 1}`."""
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    """Ray's runtime environment of the replicas: `pip`, `env_vars`, `working_dir`, ..."""
    batch_size: int | None = None
    """Groups in one call; null: a step's groups are dealt evenly to the replicas."""
    concurrency: int = 1
    """Calls that a replica works on at once, in threads."""
    timeout_s: float = 120.0
    """Of one call. A replica that exceeds it is killed and started anew."""
    retries: int = 1
    """Further attempts for a group whose scoring raised, timed out or lost its actor."""
    cache: str = "none"
    """Whether equal content is scored once a run: `none`, `group` (prompt and all its completions) or
    `completion` (right where a score depends on prompt and completion alone)."""
    on_error: str = "abort"
    """`abort` the run, `mask` the completion (leave it out of the update), or a number for its value."""

    def __post_init__(self) -> None:
        known_target = self.target == MISSING or _REWARD.fullmatch(self.target)
        allowed = "package.module:Class, package.module:function or the name of an entry point"
        check(bool(known_target), "target", self.target, allowed)
        _at_least(self, 1, "replicas", "concurrency")
        _at_least(self, 0, "num_cpus", "num_gpus", "retries")
        if self.batch_size is not None:
            _at_least(self, 1, "batch_size")
        for name, amount in self.resources.items():
            check(_is_number(amount) and float(amount) > 0, f"resources.{name}", amount, "above 0")
        asks = self.num_cpus or self.num_gpus or self.resources
        check(bool(asks), "num_cpus", self.num_cpus, "above 0 where neither num_gpus nor resources is set")
        _one_of(self, "cache", "none", "group", "completion")
        _positive(self, "timeout_s")
        check(math.isfinite(self.weight), "weight", self.weight, "a finite number")
        known = self.on_error in ("abort", "mask") or _is_number(self.on_error)
        check(known, "on_error", self.on_error, "abort, mask or a number")


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
        _one_of(self, "schedule", "progressive", "anneal", "constant")
        if self.anneal_steps is not None:
            _positive(self, "anneal_steps")
        _at_least(self, 1, "window")
        _at_least(self, 0, "max_spread")


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """Rewards to advantages to loss; formulas and sources in docs/algorithms.md."""

    advantage: str = "grpo"
    """`grpo`, `dr_grpo`, `rloo`, `reinforce_pp`, `reinforce_pp_baseline` or `maxrl`."""
    std_eps: float = 1e-4
    """Added to what an estimator divides by. A larger one keeps groups whose rewards nearly agree, and differ
    by a reward model's noise alone, from counting as much as groups that tell right from wrong."""
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
        _one_of(
            self, "advantage", "grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline", "maxrl"
        )
        _one_of(self, "loss", "ppo", "gspo", "cispo")
        _one_of(self, "kl_estimator", "k1", "k2", "k3")
        _one_of(self, "kl_in", "loss", "reward")
        _one_of(self, "loss_aggregation", "token", "sequence", "constant")
        _one_of(self, "correction", "none", "tis", "icepop", "sequence_tis", "sequence_icepop")
        check(0 < self.clip_low <= 1, "clip_low", self.clip_low, "between 0 and 1")
        _positive(self, "clip_high", "std_eps", "correction_high")
        _at_least(self, 0, "kl_coef", "entropy_coef", "correction_low", "overlong_buffer", "overlong_penalty")
        high = self.correction_high
        check(self.correction_low < high, "correction_low", self.correction_low, f"below {high}")
        dual = self.clip_dual
        if dual is not None:
            check(self.loss == "ppo", "clip_dual", dual, f"null where algorithm.loss is {self.loss}")
            check(dual > 1, "clip_dual", dual, "above 1, or null")


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) on linear layers."""

    rank: int = 0
    """Rank of the adapters; 0: none, every parameter that is not frozen is trained."""
    alpha: int = 32
    """An adapter's product is scaled by `alpha / rank`."""
    dropout: float = 0.0
    """On the adapters' input. Above 0 the learner's policy differs from the one that was sampled."""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Linear layers by the end of their name (`q_proj`, `layers.0.mlp.up_proj`); frozen ones get none."""
    also_train: tuple[str, ...] = ()
    """Parameters whose name contains one of these are trained beside the adapters, whole (a projector)."""

    def __post_init__(self) -> None:
        _at_least(self, 0, "rank")
        _positive(self, "alpha")
        check(0 <= self.dropout < 1, "dropout", self.dropout, "at least 0 and below 1")
        check(bool(self.target_modules), "target_modules", self.target_modules, "at least one name")


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    num_ranks: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    zero_stage: int = 2
    """What the ranks share out: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 parameters too."""
    offload_optimizer: str = "none"
    """`cpu` keeps the optimizer's state and update in main memory (`zero_stage` 1 to 3)."""
    offload_parameters: str = "none"
    """`cpu` keeps the parameters in main memory between their uses (`zero_stage` 3)."""
    activation_checkpointing: bool = False
    """Decoder layers keep their input alone and are computed again in the backward pass."""
    lora: LoRAConfig = field(default_factory=LoRAConfig)
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
    """Tokens in one forward pass: each prompt once, and its completions."""
    micro_batch_audio_frames: int = 96_000
    """Mel frames in one forward pass, where the audio tower is part of it (32 windows of 30 s)."""
    over_budget: str = "error"
    """What befalls a sample that alone exceeds `micro_batch_tokens`: `error` ends the run, `drop` leaves the
    sample out of the batch and counts it (`dropped_samples`)."""
    updates_per_batch: int = 1
    recompute_logprobs: bool | None = None
    """Whether the old logprobs are the learner's own before the first update on a batch (its first forward
    pass gives them) or the rollout's; null: the learner's where updates_per_batch is above 1."""
    max_skipped_steps: int = 5
    """Optimizer steps in a row that may be skipped for a loss or gradient that is not finite; one more ends
    the run, after a checkpoint."""
    timeout_s: float = 600.0

    @property
    def recomputes_logprobs(self) -> bool:
        return self.updates_per_batch > 1 if self.recompute_logprobs is None else self.recompute_logprobs

    def __post_init__(self) -> None:
        _at_least(self, 1, "num_ranks", "micro_batch_tokens", "updates_per_batch")
        _at_least(self, 1, "micro_batch_audio_frames")
        _at_least(self, 0, "num_cpus", "num_gpus", "lr", "warmup_steps", "weight_decay", "max_skipped_steps")
        _one_of(self, "zero_stage", 0, 1, 2, 3)
        for name, lowest in (("offload_optimizer", 1), ("offload_parameters", 3)):
            _one_of(self, name, "none", "cpu")
            fits = getattr(self, name) == "none" or self.zero_stage >= lowest
            check(
                fits, name, getattr(self, name), f"none below zero_stage {lowest} (it is {self.zero_stage})"
            )
        _one_of(self, "over_budget", "error", "drop")
        _one_of(self, "lr_schedule", "constant", "linear", "cosine")
        _one_of(self, "autocast", "none", "bfloat16")
        _positive(self, "max_grad_norm", "timeout_s")
        betas_ok = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        check(betas_ok, "betas", self.betas, "two numbers, each at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """The frozen starting policy, spawned where `algorithm.kl_coef` is above 0."""

    num_replicas: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    micro_batch_tokens: int = 16384
    """Tokens in one forward pass: each prompt once, and its completions."""
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        _at_least(self, 1, "num_replicas", "micro_batch_tokens")
        _at_least(self, 0, "num_cpus", "num_gpus")
        _positive(self, "timeout_s")


@dataclass(frozen=True, kw_only=True)
class WeightSyncConfig:
    """How the learner's weights reach the rollout engines (docs/rollout.md)."""

    backend: str = "shared_memory"
    """`shared_memory` (one machine), `gloo` (several, over TCP), `nccl` (between GPUs) or `ipc` (learner and
    rollout on the same GPUs)."""
    bucket_mb: float = 2.0
    """MB gathered, sent and loaded at a time; three buckets are under way, and best fit the processor's cache
    together. A larger tensor is cut; a smaller one stays whole."""
    timeout_s: float = 120.0
    """Deadline of a push, at either end."""

    def __post_init__(self) -> None:
        _one_of(self, "backend", "shared_memory", "gloo", "nccl", "ipc")
        _positive(self, "bucket_mb", "timeout_s")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    num_steps: int = 100
    prompts_per_step: int = 16
    eval_every: int = 0
    """Steps between evaluations; 0: only before and after."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: only at the end and on a signal."""
    max_eval_prompts: int | None = None

    def __post_init__(self) -> None:
        _at_least(self, 0, "num_steps", "eval_every", "checkpoint_every")
        _at_least(self, 1, "prompts_per_step")
        if self.max_eval_prompts is not None:
            _at_least(self, 1, "max_eval_prompts")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    address: str | None = None
    """Ray address; `None` joins the job's cluster where there is one, else starts a local one."""
    num_cpus: float | None = None
    """CPUs of a local cluster; `None`: those of this machine."""
    log_to_driver: bool = False
    """Show the actors' own output in the terminal too; it always lies in Ray's session folder."""
    placement_timeout_s: float = 30.0
    startup_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        _positive(self, "placement_timeout_s", "startup_timeout_s")
        if self.num_cpus is not None:
            _positive(self, "num_cpus")


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
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    weight_sync: WeightSyncConfig = field(default_factory=WeightSyncConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        k = self.rollout.samples_per_prompt
        check(
            k >= 2,
            "rollout.samples_per_prompt",
            k,
            "at least 2: a group's answers are compared with each other",
        )
        temperature = self.rollout.temperature
        check(temperature > 0, "rollout.temperature", temperature, "above 0: greedy answers are all alike")
        on_gpus = self.learner.num_gpus > 0 and self.rollout.num_gpus > 0
        check(
            on_gpus or self.weight_sync.backend not in ("nccl", "ipc"),
            "weight_sync.backend",
            self.weight_sync.backend,
            "shared_memory or gloo, unless learner.num_gpus and rollout.num_gpus are above 0",
        )
        buffer, limit = self.algorithm.overlong_buffer, self.rollout.max_tokens
        at_most = f"at most rollout.max_tokens ({limit})"
        check(buffer <= limit, "algorithm.overlong_buffer", buffer, at_most)
        correction = self.algorithm.correction
        check(
            correction == "none" or self.learner.recomputes_logprobs,
            "algorithm.correction",
            correction,
            "none unless learner.recompute_logprobs is true: the rollout's own logprobs need no correction",
        )
        for key in ("outcome", "reasoning"):
            name = getattr(self.algorithm.ptr, key)
            names = sorted(self.rewards)
            check(
                name is None or name in names, f"algorithm.ptr.{key}", name, f"the name of a reward: {names}"
            )


@overload
def load_config(files: Sequence[str | Path], overrides: Sequence[str] = ()) -> RunConfig: ...
@overload
def load_config(files: Sequence[str | Path], overrides: Sequence[str], schema: type[T]) -> T: ...
def load_config(files: Sequence[str | Path], overrides: Sequence[str] = (), schema: type = RunConfig) -> Any:
    """Merges YAML files from left to right, then `key=value` overrides, over the defaults of `schema`.

    Values may refer to others (`${run_dir}/model`) and to the environment (`${oc.env:NAME}`).

    Raises:
        ConfigError: names the file or override, the full key, what it got and what is allowed.
    """
    return config_io.load(files, overrides, schema)


def to_yaml(config: Any) -> str:
    """The configuration as YAML, as resolved; strings from the environment stay `${oc.env:NAME}`."""
    return config_io.to_yaml(config)


def save_config(config: Any, path: str | Path) -> None:
    """Writes `to_yaml(config)`; `load_config([path])` gives an equal configuration."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_yaml(config), encoding="utf-8")


def _at_least(section: Any, low: float, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        check(value >= low, name, value, f"at least {low}")


def _positive(section: Any, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        check(value > 0, name, value, "above 0")


def _one_of(section: Any, name: str, *choices: Any) -> None:
    value = getattr(section, name)
    check(value in choices, name, value, f"one of {', '.join(map(str, choices))}")


def _check_target(section: TargetConfig) -> None:
    ok = section.target == MISSING or _TARGET.fullmatch(section.target)
    check(bool(ok), "target", section.target, "a class as package.module:Class")


def _is_number(text: Any) -> bool:
    try:
        return math.isfinite(float(text))
    except (TypeError, ValueError):
        return False
