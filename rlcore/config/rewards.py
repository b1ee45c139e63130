"""Settings of a reward and its actors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from rlcore.config.checks import at_least, check, gpu_share, is_number, one_of, positive, positive_amounts
from rlcore.config.io import MAY_CHANGE, Arguments
from rlcore.config.model import MISSING, TARGET
from rlcore.config.rollout import check_engine, check_engine_gpus

_REWARD = re.compile(rf"{TARGET.pattern}|[A-Za-z_][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """One reward in actors of its own (docs/guides/rewards.md)."""

    target: str = MISSING
    """`package.module:Class`, `package.module:function`, or the name of an installed package's entry point in
    the group `rlcore.rewards`."""
    args: Arguments = field(default_factory=dict)
    """Arguments of the class's constructor, or of the function beside the completion or group."""
    weight: float = 1.0
    """Factor of the score in the sum of rewards; 0 only records it."""
    replicas: int = field(default=1, metadata=MAY_CHANGE)
    """Actors that share the groups."""
    num_cpus: float = field(default=0.1, metadata=MAY_CHANGE)
    """CPUs that Ray sets aside for a replica."""
    num_gpus: float = field(default=0.0, metadata=MAY_CHANGE)
    """GPUs of a replica; below 1 it shares one."""
    resources: Mapping[str, float] = field(default_factory=dict, metadata=MAY_CHANGE)
    """Ray's custom resources of a replica, for instance `{judge_node: 1}`."""
    runtime_env: Annotated[Arguments, {"env_vars": Mapping[str, str]}] = field(default_factory=dict)
    """Ray's runtime environment of the replicas: `pip`, `env_vars`, `working_dir`, ..."""
    batch_size: int | None = None
    """Groups in one call; null: a step's groups are dealt evenly to the replicas."""
    concurrency: int = field(default=1, metadata=MAY_CHANGE)
    """Calls that a replica works on at once, in threads."""
    timeout_s: float = field(default=120.0, metadata=MAY_CHANGE)
    """Seconds that a call may take. A replica that takes longer is killed and started anew."""
    retries: int = field(default=1, metadata=MAY_CHANGE)
    """Further attempts for a group whose scoring raised, timed out or lost its actor."""
    cache: str = "none"
    """Content that is scored once per run where it is equal: `none`, `group` (prompt and all its completions)
    or `completion` (right where a score depends on prompt and completion alone)."""
    on_error: str = "abort"
    """Fate of a completion that could not be scored: `abort` the run, `mask` the completion (leave it out of
    the update), or a number for its value."""

    def __post_init__(self) -> None:
        known_target = self.target == MISSING or _REWARD.fullmatch(self.target)
        allowed = "package.module:Class, package.module:function or the name of an entry point"
        check(bool(known_target), "target", self.target, allowed)
        at_least(self, 1, "replicas", "concurrency")
        at_least(self, 0, "num_cpus", "retries")
        gpu_share(self)
        engine = self.args.get("engine")
        if self.num_gpus > 0 and isinstance(engine, Mapping):
            check_engine(engine, "args.engine")
            check_engine_gpus(engine, self.num_gpus, "num_gpus", "args.engine")
        if self.batch_size is not None:
            at_least(self, 1, "batch_size")
        positive_amounts(self, "resources")
        asks = self.num_cpus or self.num_gpus or self.resources
        check(bool(asks), "num_cpus", self.num_cpus, "above 0 where neither num_gpus nor resources is set")
        env_vars = self.runtime_env.get("env_vars") or {}
        check(isinstance(env_vars, Mapping), "runtime_env.env_vars", env_vars, "a mapping of names to texts")
        for name, value in env_vars.items():
            check(isinstance(value, str), f"runtime_env.env_vars.{name}", value, "text, in quotes")
        one_of(self, "cache", "none", "group", "completion")
        positive(self, "timeout_s")
        check(math.isfinite(self.weight), "weight", self.weight, "a finite number")
        known = self.on_error in ("abort", "mask") or is_number(self.on_error)
        check(known, "on_error", self.on_error, "abort, mask or a number")
