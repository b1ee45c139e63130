"""A run's actors: what each takes of a GPU, and which of them share one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlcore.config import RewardConfig, RunConfig
from rlcore.plan.hardware import Hardware
from rlcore.plan.memory import (
    BYTES,
    LearnerMemory,
    MicroBatch,
    forward_memory,
    learner_memory,
)
from rlcore.plan.sizes import KNOWN, ModelSizes
from rlcore.plan.workload import Batch

CONTEXT_BYTES = 1.0e9
"""A process's CUDA context, libraries' workspaces and NCCL's buffers; on CPUs, what its libraries load."""
FRAGMENTATION = 0.05
"""Share that torch's caching allocator holds beyond what is allocated."""
GPU_UTILIZATION = 0.92
"""vLLM's default `gpu_memory_utilization`."""
CPU_CACHE_BYTES = 256 << 20
"""Key-value cache of an engine on CPUs, where `kv_cache_memory_bytes` is not set (rlcore.engines)."""
HOST_PROCESS_BYTES = 2.0e9
"""Main memory of a process that uses a GPU: Python, torch, CUDA's libraries."""
RULE_BYTES = 0.3e9
"""Main memory of a reward without a model."""
LARGE_GPU_BYTES = 70 * 2**30
"""A GPU of this much memory has larger batches in vLLM where nothing else is set, unless it is an A100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role is all actors of one kind."""

    name: str
    count: int
    num_gpus: float
    """GPUs of one actor; may be a part of one."""
    num_bytes: float
    """Bytes of one actor on each of its GPUs."""
    idle_bytes: float = 0.0
    """Bytes that stay while the other role of a colocated pair has its turn."""
    parts: dict[str, float] = field(default_factory=dict)
    """Bytes by purpose; bytes of peaks at other times are left out."""
    host_bytes: float = 0.0
    """Bytes of one actor in main memory, beside its GPUs; with `cpu` they are `num_bytes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A rollout engine takes this memory on each of its GPUs, in bytes."""

    weights: float
    media: float
    """Bytes of the audio tower, in the engine or, in float32, beside it (`model.media`)."""
    activations: float
    cache: float
    """Bytes left for keys and values; below 0: none."""
    num_bytes: float
    """Bytes of all that vLLM takes."""
    asleep: float
    """Bytes that sleep does not give back: context and CUDA graphs."""
    cache_tokens: float
    num_seqs: int
    """Sequences written at once: as many of the mean length as the cache holds, at most `max_num_seqs`."""


def micro_batch(config: RunConfig, batch: Batch, max_tokens: int, num_ranks: int) -> tuple[MicroBatch, int]:
    """Returns the fullest forward pass of a rank, and how many of them a step has."""
    per_group = batch.prompt_length + batch.num_samples * batch.completion_length
    num_groups = min(max_tokens / per_group, batch.num_prompts / num_ranks)
    rows = num_groups * batch.num_samples
    if num_groups < 1:
        room = max_tokens - batch.prompt_length
        rows = min(room / batch.completion_length, batch.num_sequences / num_ranks)
        num_groups = 1
    shape = MicroBatch(
        num_groups=num_groups,
        num_rows=rows,
        prompt=batch.prompt_length,
        completion=batch.completion_length,
        longest=float(batch.lengths(max(1, math.ceil(rows))).max()),
    )
    return shape, max(1, math.ceil(batch.packed_tokens / num_ranks / max_tokens))


def largest_batch(config: RunConfig, hardware: Hardware) -> tuple[int, int]:
    """Returns an engine's `max_num_seqs` and `max_num_batched_tokens`.

    These are the values of `rollout.engine`, else the defaults of `vllm.LLM` (vllm/engine/arg_utils.py,
    `get_batch_defaults`).
    """
    engine, workers = config.rollout.engine, config.rollout.workers_per_engine
    if hardware.is_cpu:
        num_seqs, num_tokens = 256 * workers, 4096 * workers
    elif hardware.memory_gb * 1e9 >= LARGE_GPU_BYTES and "a100" not in hardware.name.lower():
        num_seqs, num_tokens = 1024, 16384
    else:
        num_seqs, num_tokens = 256, 8192
    given = engine.get("max_num_seqs"), engine.get("max_num_batched_tokens")
    return int(given[0] or num_seqs), int(given[1] or num_tokens)


def rollout_memory(config: RunConfig, sizes: ModelSizes, batch: Batch, hardware: Hardware) -> Rollout:
    """Computes what vLLM makes of its share of a GPU: weights, activations of the largest batch, and cache.

    The cache is the rest, unless `kv_cache_memory_bytes` says how large it is.
    """
    engine, size = config.rollout.engine, BYTES[config.rollout_dtype]
    tensor_parallel, workers = int(engine.get("tensor_parallel_size", 1)), config.rollout.workers_per_engine
    max_num_seqs, tokens = largest_batch(config, hardware)
    weights = size * sizes.language / workers
    is_inside = config.model.media == "raw"
    media = (size if is_inside else 4.0) * sizes.audio
    width = 4 * sizes.hidden + (2 * sizes.intermediate + 3 * sizes.attention) / tensor_parallel
    activations = size * tokens * width + 2 * 4 * max_num_seqs * sizes.vocab
    # A tower beside the engine is outside of its share, and does not sleep.
    beside = 0.0 if is_inside else media
    own = 0.0 if hardware.is_cpu else CONTEXT_BYTES * (1 if engine.get("enforce_eager") else 2)
    share = float(engine.get("gpu_memory_utilization", GPU_UTILIZATION)) * hardware.memory_gb * 1e9
    rest = CPU_CACHE_BYTES if hardware.is_cpu else share - weights - (media - beside) - activations - own
    cache = float(engine.get("kv_cache_memory_bytes") or rest)
    per_token = size * sizes.kv_values_per_token / workers
    per_sequence = batch.prompt_length / batch.num_samples + batch.completion_length
    cache_tokens = max(cache, 0.0) / per_token
    return Rollout(
        weights=weights,
        media=media,
        activations=activations,
        cache=cache,
        num_bytes=weights + media + activations + cache + own,
        asleep=own + beside,
        cache_tokens=cache_tokens,
        num_seqs=max(1, min(max_num_seqs, int(cache_tokens / per_sequence))),
    )


def learner_of(config: RunConfig, sizes: ModelSizes, batch: Batch, hardware: Hardware) -> LearnerMemory:
    """Computes the memory of one learner rank of this run."""
    shape, count = micro_batch(config, batch, config.learner.micro_batch_tokens, config.learner.num_ranks)
    return learner_memory(sizes, config.model, config.learner, shape, hardware, num_micro_batches=count)


def roles_of(config: RunConfig, sizes: ModelSizes, batch: Batch, hardware: Hardware) -> list[Role]:
    """Returns the roles whose actors take a GPU (with `cpu`: all roles but rewards by rule)."""
    rollout = rollout_memory(config, sizes, batch, hardware)
    learner = learner_of(config, sizes, batch, hardware)
    overhead, share = CONTEXT_BYTES, 0.0 if hardware.is_cpu else FRAGMENTATION
    roles = [
        Role(
            name="rollout",
            count=config.rollout.min_replicas,
            num_gpus=_gpus(config.rollout, hardware),
            num_bytes=rollout.num_bytes + (overhead if hardware.is_cpu else 0),
            idle_bytes=rollout.asleep,
            parts={
                "weights": rollout.weights,
                "audio tower": rollout.media,
                "activations": rollout.activations,
                "KV cache": rollout.cache,
            },
            host_bytes=_rollout_host(config, rollout),
        ),
        Role(
            name="learner",
            count=config.learner.num_ranks,
            num_gpus=_gpus(config.learner, hardware),
            num_bytes=overhead + (1 + share) * learner.peak,
            idle_bytes=overhead + (1 + share) * learner.states,
            parts={
                "weights": learner.weights,
                "audio tower": learner.media,
                "gradients": learner.gradients,
                "optimizer": learner.optimizer,
                "buffers": learner.buffers,
                "activations": learner.activations,
                "logits": learner.logits,
            },
            host_bytes=HOST_PROCESS_BYTES + max(learner.host, _loaded(config, sizes)),
        ),
    ]
    if config.algorithm.kl_coef > 0 and config.reference.num_replicas > 0:
        num_bytes = forward_memory(
            sizes, config.model, config.learner, config.reference.micro_batch_tokens, hardware
        )
        roles.append(
            Role(
                name="reference",
                count=config.reference.num_replicas,
                num_gpus=_gpus(config.reference, hardware),
                num_bytes=overhead + (1 + share) * num_bytes,
                parts={"weights and activations": num_bytes},
                host_bytes=HOST_PROCESS_BYTES + _narrowed(config, sizes),
            )
        )
    if hardware.is_cpu:
        return roles + [_cpu_reward(name, reward, config, sizes) for name, reward in config.rewards.items()]
    return roles + [
        _reward(name, reward, hardware) for name, reward in config.rewards.items() if reward.num_gpus > 0
    ]


def _rollout_host(config: RunConfig, rollout: Rollout) -> float:
    """Main memory of an engine's processes; asleep, an engine with a tower keeps its weights there."""
    workers = config.rollout.workers_per_engine
    sleeping = (
        rollout.weights + rollout.media if config.cluster.colocate and config.model.media == "raw" else 0.0
    )
    return HOST_PROCESS_BYTES * (1 if workers == 1 else workers + 1) + sleeping


def _loaded(config: RunConfig, sizes: ModelSizes) -> float:
    """Main memory of a rank beside a GPU while it loads the checkpoint (`hf_model.load_model`).

    ZeRO-3 gives the rank its part; before that, transformers joins the experts of a mixture on
    every rank, in bfloat16. With adapters the rank holds all of it. Else weights go to the GPU at once.
    """
    learner = config.learner
    whole = float(BYTES[learner.weight_dtype] * (sizes.language + sizes.media))
    if learner.zero_stage == 3:
        experts = 2.0 * sizes.num_layers * sizes.layer if sizes.idle else 0.0
        return whole / learner.num_ranks + experts
    return whole if learner.lora.rank else 0.0


def _narrowed(config: RunConfig, sizes: ModelSizes) -> float:
    """Main memory of a reference that loads the checkpoint in float32 and narrows it; else weights go to the
    GPU at once."""
    is_narrowed = (config.learner.weight_dtype, config.learner.compute_dtype) == ("float32", "bfloat16")
    return 4.0 * (sizes.language + sizes.media) if is_narrowed else 0.0


def judge_sizes(reward: RewardConfig, config: RunConfig, sizes: ModelSizes) -> ModelSizes | None:
    """Returns the sizes of the model that a reward names in `args.model_path`, where they are known."""
    path = reward.args.get("model_path")
    return sizes if path == config.model.path else KNOWN.get(str(path))


def _cpu_reward(name: str, reward: RewardConfig, config: RunConfig, sizes: ModelSizes) -> Role:
    """A reward that names a model holds its weights and an engine's cache; one of unknown size is taken to be
    as large as the policy."""
    num_bytes, parts = RULE_BYTES, {"process": RULE_BYTES}
    if "model_path" in reward.args:
        judge = judge_sizes(reward, config, sizes) or sizes
        weights = BYTES.get(str(reward.args.get("dtype")), 4.0) * (judge.language + judge.media)
        num_bytes, parts = weights + CPU_CACHE_BYTES + CONTEXT_BYTES, {"weights": weights}
    return Role(
        name=f"reward {name}",
        count=reward.replicas,
        num_gpus=reward.num_cpus,
        num_bytes=num_bytes,
        parts=parts,
    )


def cpu_rewards(config: RunConfig) -> float:
    """Returns the bytes of main memory that rewards without a GPU take beside the roles on GPUs."""
    return sum(reward.replicas * RULE_BYTES for reward in config.rewards.values() if reward.num_gpus == 0)


def _reward(name: str, reward: RewardConfig, hardware: Hardware) -> Role:
    """A reward on GPUs is taken for a vLLM engine, which takes its share whatever the model."""
    engine = reward.args.get("engine") or {}
    share = float(engine.get("gpu_memory_utilization", GPU_UTILIZATION))
    num_bytes = share * hardware.memory_gb * 1e9
    return Role(
        name=f"reward {name}",
        count=reward.replicas,
        num_gpus=reward.num_gpus,
        num_bytes=num_bytes,
        parts={"engine": num_bytes},
        host_bytes=HOST_PROCESS_BYTES,
    )


def _gpus(section: object, hardware: Hardware) -> float:
    return float(getattr(section, "num_cpus" if hardware.is_cpu else "num_gpus"))


@dataclass(slots=True)
class Device:
    """A device is one GPU, and the roles that are on it."""

    free: float = 1.0
    num_bytes: float = 0.0
    """Bytes when the roles take most."""
    roles: list[str] = field(default_factory=list)
    host: dict[str, float] = field(default_factory=dict)
    """Role to the main memory of its actors here; one on several GPUs counts at its first."""


def place(roles: Sequence[Role], *, colocate: bool = False) -> list[Device]:
    """Places actors on as few GPUs as they need: whole ones first, parts where there is room, as Ray's PACK
    does.

    With `colocate` a rollout engine and a learner rank are placed as one (`actors.placement.run_bundles`).
    """
    pair = [role for role in roles if colocate and role.name in ("rollout", "learner")]
    bundles = [pair] if pair else []
    bundles += [[role] for role in roles if role not in pair]
    devices: list[Device] = []
    for bundle in sorted(bundles, key=lambda bundle: -_num_gpus(bundle)):
        num_gpus, num_bytes = _num_gpus(bundle), _most_bytes(bundle)
        names = [role.name for role in bundle]
        for _ in range(bundle[0].count):
            if num_gpus >= 1:
                devices += [Device(0.0, num_bytes, [*names]) for _ in range(math.ceil(num_gpus))]
                _add_host(devices[-math.ceil(num_gpus)], bundle)
                continue
            at = next((d for d in devices if d.free >= num_gpus - 1e-9), None)
            if at is None:
                at = Device()
                devices.append(at)
            at.free -= num_gpus
            at.num_bytes += num_bytes
            at.roles += names
            _add_host(at, bundle)
    return devices


def _add_host(device: Device, bundle: Sequence[Role]) -> None:
    for role in bundle:
        device.host[role.name] = device.host.get(role.name, 0.0) + role.host_bytes


def _num_gpus(bundle: Sequence[Role]) -> float:
    return sum(role.num_gpus for role in bundle)


def _most_bytes(bundle: Sequence[Role]) -> float:
    """In the turn in which they take most: all but the one whose turn it is are idle."""
    idle = sum(role.idle_bytes for role in bundle)
    return max(idle - role.idle_bytes + role.num_bytes for role in bundle)
