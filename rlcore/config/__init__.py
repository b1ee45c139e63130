"""The configuration of a training run: frozen keyword-only dataclasses, defaults here and nowhere else.

Each class validates itself in `__post_init__`; `load_config` merges YAML files and `key=value` overrides
into these or any other frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, overload

from rlcore.algorithms.importance import CORRECTIONS
from rlcore.config import io as config_io
from rlcore.config.algorithm import AlgorithmConfig, PTRConfig
from rlcore.config.checks import between, check, without_tilde
from rlcore.config.io import MAY_CHANGE
from rlcore.config.job import JobConfig
from rlcore.config.learner import LearnerConfig, LoRAConfig, ReferenceConfig, WeightSyncConfig
from rlcore.config.model import MISSING, ModelConfig, TargetConfig
from rlcore.config.resuming import IF_ACCEPTED
from rlcore.config.rewards import RewardConfig
from rlcore.config.rollout import RolloutConfig
from rlcore.config.train import ClusterConfig, TrainConfig
from rlcore.config.weight_media import check_gpus, names_of

__all__ = [
    "LARGEST_SEED",
    "MISSING",
    "AlgorithmConfig",
    "ClusterConfig",
    "JobConfig",
    "LearnerConfig",
    "LoRAConfig",
    "ModelConfig",
    "PTRConfig",
    "ReferenceConfig",
    "RewardConfig",
    "RolloutConfig",
    "RunConfig",
    "TargetConfig",
    "TrainConfig",
    "WeightSyncConfig",
    "load_config",
    "save_config",
    "to_yaml",
]

T = TypeVar("T")


_LOWEST_TEMPERATURE = 0.01
"""Below, vLLM's logits overflow and answers are greedy ones."""
LARGEST_SEED = 2**63 - 1
"""numpy takes no seed below 0, torch none that 64 bits do not hold; 63 bits fit signed ones too."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run, as `rlcore train` reads it."""

    run_dir: str = field(default="runs/run", metadata=MAY_CHANGE)
    """Folder of the run's metrics, samples, checkpoints and model; it must not hold another run."""
    seed: int = 0
    """Seed of the order of prompts, of sampling, adapters and dropout."""
    model: ModelConfig = field(default_factory=ModelConfig)
    task: TargetConfig = field(default_factory=TargetConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig, metadata=IF_ACCEPTED)
    rewards: dict[str, RewardConfig] = field(default_factory=dict, metadata=IF_ACCEPTED)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig, metadata=IF_ACCEPTED)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    weight_sync: WeightSyncConfig = field(default_factory=WeightSyncConfig, metadata=MAY_CHANGE)
    train: TrainConfig = field(default_factory=TrainConfig, metadata=IF_ACCEPTED)
    cluster: ClusterConfig = field(default_factory=ClusterConfig, metadata=MAY_CHANGE)

    @property
    def rollout_dtype(self) -> str:
        """Dtype of the rollout engines."""
        return self.model.engine_dtype(self.rollout.num_gpus)

    def __post_init__(self) -> None:
        without_tilde(self, "run_dir")
        between(self, 0, LARGEST_SEED, "seed")
        k = self.rollout.samples_per_prompt
        check(
            k >= 2,
            "rollout.samples_per_prompt",
            k,
            "at least 2: a group's answers are compared with each other",
        )
        temperature = self.rollout.temperature
        check(
            temperature >= _LOWEST_TEMPERATURE,
            "rollout.temperature",
            temperature,
            f"at least {_LOWEST_TEMPERATURE:g}: greedy answers are all alike",
        )
        self._check_gpus()
        over_budget, budget = self.learner.over_budget, self.learner.micro_batch_tokens
        check(
            over_budget == "drop" or self.rollout.max_tokens < budget,
            "learner.micro_batch_tokens",
            budget,
            f"above rollout.max_tokens ({self.rollout.max_tokens}) by the longest prompt: a longer answer "
            "would end the run, unless learner.over_budget is drop",
        )
        buffer, limit = self.algorithm.overlong_buffer, self.rollout.max_tokens
        at_most = f"at most rollout.max_tokens ({limit})"
        check(buffer <= limit, "algorithm.overlong_buffer", buffer, at_most)
        algorithm = self.algorithm
        check(
            algorithm.advantage != "pass_at_k" or algorithm.pass_k < k,
            "algorithm.pass_k",
            algorithm.pass_k,
            f"below rollout.samples_per_prompt ({k}): else every set of a group earns the same",
        )
        check(
            algorithm.kl_estimator != "k1" or algorithm.kl_in == "reward" or algorithm.kl_coef == 0,
            "algorithm.kl_estimator",
            algorithm.kl_estimator,
            "k2 or k3 with algorithm.kl_in loss, where the expected gradient of k1 is zero; or kl_in reward",
        )
        self._check_logprobs()
        self._check_adapters()
        self._check_rewards()

    def _check_gpus(self) -> None:
        on_gpus = self.learner.num_gpus > 0 and self.rollout.num_gpus > 0
        colocate = self.cluster.colocate
        may_share = self.learner.num_gpus + self.rollout.num_gpus <= 1
        check_gpus(self.weight_sync.backend, on_gpus=on_gpus, colocate=colocate, may_share=may_share)
        if colocate:
            self._check_colocation()
        self.learner.check_ranks_apart("learner", beside=self.rollout.num_gpus if colocate else 0.0)

    def _check_adapters(self) -> None:
        """Adapters are pushed alone where that can be done, and a learner with some may be its reference."""
        lora = self.learner.lora
        can_add = lora.rank > 0 and self.weight_sync.medium.carries_adapters
        check(
            lora.push == "merged" or can_add,
            "learner.lora.push",
            lora.push,
            "merged unless learner.lora.rank is above 0 and weight_sync.backend "
            + names_of(lambda medium: medium.carries_adapters),
        )
        check(
            lora.push == "merged" or self._engines_load,
            "learner.lora.push",
            lora.push,
            "merged with rollout.engine.load_format: dummy: engines add adapters to what they loaded",
        )
        every, num_references = self.reference.sync_every, self.reference.num_replicas
        check(
            every is None or (num_references > 0 and self.algorithm.kl_coef > 0),
            "reference.sync_every",
            every,
            "null unless algorithm.kl_coef is above 0 and reference.num_replicas at least 1: there is no "
            "reference to move",
        )
        check(
            num_references > 0
            or self.algorithm.kl_coef == 0
            or (lora.rank > 0 and not lora.also_train and not self.cluster.colocate),
            "reference.num_replicas",
            num_references,
            "at least 1; 0 is the learner without its adapters, which needs learner.lora.rank above 0, "
            "learner.lora.also_train empty and cluster.colocate false",
        )

    @property
    def pushes_all(self) -> bool:
        """Says whether a push brings all weights of the language model. With adapters it brings what they
        change, and engines hold the rest from `model.path`, unless that is not the learner's, or they forget
        weights while asleep."""
        lora, holds_rest = self.learner.lora, self.engines_start_alike and not self.cluster.colocate
        return lora.rank == 0 or (lora.push == "merged" and not holds_rest)

    @property
    def engines_start_alike(self) -> bool:
        """Says whether engines load from `model.path` the very weights of the learner: not where they load
        none, or in float32 what the learner rounds to bfloat16."""
        is_rounded = self.learner.weight_dtype == "bfloat16" and self.rollout_dtype == "float32"
        return self._engines_load and not is_rounded

    @property
    def _engines_load(self) -> bool:
        return self.rollout.engine.get("load_format") != "dummy"

    def _check_rewards(self) -> None:
        """One reward at least counts, and those that PTR names are there."""
        weights = {name: reward.weight for name, reward in self.rewards.items()}
        check(
            not weights or any(weights.values()),
            "rewards",
            weights,
            "weights of which one at least is not 0: with none there is nothing to learn from",
        )
        for key in ("outcome", "reasoning"):
            name = getattr(self.algorithm.ptr, key)
            names = sorted(self.rewards)
            check(
                name is None or name in names, f"algorithm.ptr.{key}", name, f"the name of a reward: {names}"
            )

    def _check_logprobs(self) -> None:
        """Log-probabilities that are not the learner's own need a correction."""
        correction = self.algorithm.correction
        check(
            correction == "none" or self.learner.recomputes_logprobs,
            "algorithm.correction",
            correction,
            "none unless learner.recompute_logprobs is true: the rollout's own logprobs need no correction",
        )
        # Else what older weights wrote would pass for the learner's own: neither weighted nor clipped.
        unweighted = ("none", "geometric_mask")
        set_right = [name for name in CORRECTIONS if name not in unweighted]
        is_weighted = correction not in unweighted or not self.learner.recomputes_logprobs
        check(
            self.train.staleness == 0 or is_weighted,
            "algorithm.correction",
            correction,
            f"one of {', '.join(set_right)} with train.staleness above 0 and recomputed log-probabilities "
            "(learner.recompute_logprobs, or more than one optimizer step on a batch)",
        )
        structured = dict(self.rollout.structured)
        check(
            not structured or self.learner.recomputes_logprobs,
            "rollout.structured",
            structured,
            "empty unless learner.recompute_logprobs is true: the engine's are under the constraint",
        )

    def _check_colocation(self) -> None:
        replicas, ranks = self.rollout.num_replicas, self.learner.num_ranks
        is_equal = self.rollout.min_replicas == self.rollout.max_replicas == ranks
        alone = "with cluster.colocate"
        check(is_equal, "rollout.num_replicas", replicas, f"learner.num_ranks ({ranks}) {alone}")
        check(
            self.train.staleness == 0, "train.staleness", self.train.staleness, f"0 {alone}: they take turns"
        )
        workers = self.rollout.workers_per_engine
        check(workers == 1, "rollout.engine", dict(self.rollout.engine), f"of one GPU an engine {alone}")
        gpus = self.rollout.num_gpus + self.learner.num_gpus
        check(gpus <= 1, "rollout.num_gpus", self.rollout.num_gpus, f"at most 1 - learner.num_gpus {alone}")


@overload
def load_config(files: Sequence[str | Path], overrides: Sequence[str] = ()) -> RunConfig: ...
@overload
def load_config(files: Sequence[str | Path], overrides: Sequence[str], schema: type[T]) -> T: ...
def load_config(
    files: Sequence[str | Path], overrides: Sequence[str] = (), schema: type = RunConfig
) -> object:
    """Merges YAML files from left to right, then `key=value` overrides, over the defaults of `schema`.

    Values may refer to others (`${run_dir}/model`) and to the environment (`${oc.env:NAME}`).

    Raises:
        ConfigError: names the file or override, the full key, what it got and what is allowed.
    """
    return config_io.load(files, overrides, schema)


def to_yaml(config: object) -> str:
    """Returns the configuration as YAML, resolved; strings from the environment stay `${oc.env:NAME}`."""
    return config_io.to_yaml(config)


def save_config(config: object, path: str | Path) -> None:
    """Writes `to_yaml(config)`; `load_config([path])` gives an equal configuration."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_yaml(config), encoding="utf-8")
