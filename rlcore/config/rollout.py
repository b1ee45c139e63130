"""Settings of the engines that sample answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlcore.config.checks import at_least, check, gpu_share, one_of, positive, positive_amounts
from rlcore.config.io import MAY_CHANGE, Arguments

_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "prefill_context_parallel_size")
"""vLLM's engine arguments whose product is the number of an engine's workers."""
_LIMITS = ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "kv_cache_memory_bytes")
"""vLLM's engine arguments that count something, of which null leaves the limits to vLLM."""


def check_engine(engine: Mapping[str, object], key: str) -> None:
    """Refuses values of vLLM's engine arguments that rlcore reads as well. vLLM's command line takes
    notations such as `4k`, the engine itself does not.

    Args:
        key: configuration path of the arguments, for errors.
    """
    for name in (*_SIZES, *_LIMITS):
        value, or_null = engine.get(name, 1), ", or null" if name in _LIMITS else ""
        is_whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value % 1 == 0
        known = (is_whole and value >= 1) or (value is None and name in _LIMITS)  # type: ignore[operator]
        check(known, f"{key}.{name}", value, f"a whole number, at least 1{or_null}")
    share = engine.get("gpu_memory_utilization", 1.0)
    known = isinstance(share, (int, float)) and not isinstance(share, bool) and 0 < share <= 1
    check(known, f"{key}.gpu_memory_utilization", share, "a number above 0 and at most 1")


def check_replicas(value: object) -> None:
    """Refuses what is neither a number of replicas nor `{min: ..., max: ...}`."""
    whole = "a whole number, or {min: 1, max: 4}"
    if isinstance(value, Mapping):
        check(set(value) == {"min", "max"}, "num_replicas", dict(value), whole)
        for name, number in value.items():
            check(_is_whole(number), f"num_replicas.{name}", number, "a whole number")
    else:
        check(_is_whole(value), "num_replicas", value, whole)
    low, high = _bounds(value)
    key = "num_replicas.min" if isinstance(value, Mapping) else "num_replicas"
    check(int(low) >= 1, key, low, "at least 1")
    check(int(high) >= int(low), "num_replicas.max", high, f"at least num_replicas.min ({low})")


def _bounds(replicas: Any) -> tuple[Any, Any]:
    return (replicas["min"], replicas["max"]) if isinstance(replicas, Mapping) else (replicas, replicas)


def _is_whole(value: object) -> bool:
    """A text of digits comes from the environment."""
    if isinstance(value, str):
        return value.isdecimal()
    return isinstance(value, int) and not isinstance(value, bool)


def num_workers(engine: Mapping[str, Any]) -> int:
    """Returns the number of vLLM's worker processes in an engine of these arguments, each with a GPU."""
    return math.prod(int(engine.get(name, 1)) for name in _SIZES)


def check_engine_gpus(engine: Mapping[str, Any], num_gpus: float, key: str, engine_key: str) -> None:
    """Refuses an engine on GPUs that has not one for each of its workers.

    Args:
        key: configuration path of `num_gpus`, for errors.
        engine_key: configuration path of the engine's arguments.
    """
    workers = num_workers(engine)
    if workers == 1:
        check(num_gpus <= 1, key, num_gpus, f"at most 1: {engine_key} makes one worker, which uses one GPU")
    else:
        sizes = " x ".join(name for name in _SIZES if engine.get(name, 1) != 1)
        allowed = f"{workers}, a GPU for each worker of {engine_key} ({sizes})"
        check(num_gpus in (0, workers), key, num_gpus, allowed)


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """Engines that sample answers, and the form of the answers (docs/explanation/rollout.md)."""

    num_replicas: object = field(default=1, metadata=MAY_CHANGE)
    """A number, or `{min: 1, max: 4}`: the run starts with the fewest, has more while the cluster has room
    for them, and ends where it cannot have the fewest again."""
    num_cpus: float = field(default=1.0, metadata=MAY_CHANGE)
    """CPUs that Ray sets aside for a replica."""
    num_gpus: float = field(default=0.0, metadata=MAY_CHANGE)
    """GPUs of a replica; below 1 it shares one."""
    resources: Mapping[str, float] = field(default_factory=dict, metadata=MAY_CHANGE)
    """Ray's custom resources of a replica, for instance `{accelerator_type:H100: 0.001}`, which Ray gives
    every node with such a GPU."""
    samples_per_prompt: int = 8
    """K, the number of answers in a group."""
    max_tokens: int = 256
    """Tokens at which a completion is cut off."""
    temperature: float = 1.0
    """Temperature of the policy: engine, learner and reference all divide the model's logits by this
    number."""
    top_p: float = 1.0
    """Probability mass that is sampled from; below 1 improbable tokens are never sampled, and
    log-probabilities stay those of all tokens."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion, which keeps them."""
    banned_tokens: tuple[str, ...] = ()
    """Tokens that are never sampled, beside the model's media placeholders; as the tokenizer writes them, for
    instance `<|im_start|>`."""
    structured: Mapping[str, object] = field(default_factory=dict)
    """The form that every completion has: one of `regex`, `choice`, `json` (a schema) or `grammar`, as in
    vLLM's structured outputs. vLLM's log-probabilities are those under the constraint, which the learner does
    not know: it needs learner.recompute_logprobs, and `logprob_max_diff` shows the constraint."""
    engine: Arguments = field(default_factory=dict)
    """Further vLLM engine arguments (`max_model_len`, `gpu_memory_utilization`, `tensor_parallel_size`)."""
    over_context: str = "error"
    """Fate of a prompt that leaves no room in the engine's context: `error` ends the run, `drop` leaves
    the prompt out and counts it (`rollout/dropped_prompts`)."""
    timeout_s: float = field(default=600.0, metadata=MAY_CHANGE)
    """The run ends where no prompt is finished in this time."""
    hang_timeout_s: float = field(default=120.0, metadata=MAY_CHANGE)
    """A replica whose engine does not come back from a step in this time is replaced."""
    max_restarts: int = field(default=3, metadata=MAY_CHANGE)
    """Replicas that may be replaced in a run, because they died or hung; one more ends it."""

    @property
    def min_replicas(self) -> int:
        """Returns the number of replicas that the run cannot do without."""
        return int(_bounds(self.num_replicas)[0])

    @property
    def max_replicas(self) -> int:
        """Returns the largest number of replicas that the run may have."""
        return int(_bounds(self.num_replicas)[1])

    @property
    def workers_per_engine(self) -> int:
        """Number of vLLM's worker processes in one engine."""
        return num_workers(self.engine)

    def __post_init__(self) -> None:
        check_replicas(self.num_replicas)
        at_least(self, 1, "samples_per_prompt", "max_tokens")
        at_least(self, 0, "num_cpus", "temperature")
        gpu_share(self)
        check("" not in self.stop, "stop", list(self.stop), "texts of a character or more")
        check(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        positive_amounts(self, "resources")
        one_of(self, "over_context", "error", "drop")
        forms = ("regex", "choice", "json", "grammar")
        known = not self.structured or (len(self.structured) == 1 and next(iter(self.structured)) in forms)
        check(
            known, "structured", dict(self.structured), f"empty, or one of {', '.join(forms)} and its value"
        )
        check_engine(self.engine, "engine")
        check_engine_gpus(self.engine, self.num_gpus, "num_gpus", "engine")
        at_least(self, 0, "max_restarts")
        positive(self, "timeout_s", "hang_timeout_s")
