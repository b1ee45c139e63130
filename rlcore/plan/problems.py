"""Finds what keeps a run from fitting, in words that name the keys to change, and the values that its lengths
dictate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlcore.config import RunConfig
from rlcore.plan.hardware import Hardware
from rlcore.plan.roles import Device, Role, cpu_rewards, place, roles_of, rollout_memory
from rlcore.plan.sizes import ModelSizes
from rlcore.plan.workload import Batch

RESERVE = 0.03
"""Share of a GPU's memory that is left alone."""

Settings = Mapping[str, bool | int | float | str]
"""Dotted key to value."""


def find_problems(config: RunConfig, sizes: ModelSizes, batch: Batch, hardware: Hardware) -> list[str]:
    """Returns everything that would not fit, in words. Each names the keys that decide it."""
    roles = roles_of(config, sizes, batch, hardware)
    problems = _engine(config, sizes) + _lengths(config, batch) + _cache(config, sizes, batch, hardware)
    if hardware.is_cpu:
        return problems + _on_cpus(config, roles, hardware)
    devices = place(roles, colocate=config.cluster.colocate)
    return (
        problems
        + _gpus(roles, devices, hardware)
        + _gpu_memory(devices, hardware)
        + _main_memory(config, devices, hardware)
    )


def dictated(config: RunConfig, sizes: ModelSizes, batch: Batch, hardware: Hardware) -> Settings:
    """Returns the settings that have no choice: what the lengths ask for, and the GPUs of one process."""
    settings: dict[str, bool | int | float | str] = {}
    longest, context = batch.longest_sample, config.rollout.engine.get("max_model_len")
    if longest > config.learner.micro_batch_tokens:
        settings["learner.micro_batch_tokens"] = longest
    if context is not None and longest > int(context):
        settings["rollout.engine.max_model_len"] = longest
    tensor_parallel = int(config.rollout.engine.get("tensor_parallel_size", 1))
    workers, num_gpus = config.rollout.workers_per_engine, config.rollout.num_gpus
    if not _is_even(sizes, tensor_parallel):
        even = max(n for n in range(1, tensor_parallel) if _is_even(sizes, n))
        settings["rollout.engine.tensor_parallel_size"] = even
        workers = workers // tensor_parallel * even
    if not hardware.is_cpu:
        if num_gpus == 0 or workers < num_gpus:
            settings["rollout.num_gpus"] = workers
        if config.learner.num_gpus == 0:
            settings["learner.num_gpus"] = 1
    return settings


def _is_even(sizes: ModelSizes, tensor_parallel: int) -> bool:
    """Whether vLLM can split a model's layers into so many equal parts; keys and values may be repeated."""
    small, large = sorted((sizes.num_kv_heads, tensor_parallel))
    return sizes.num_heads % tensor_parallel == sizes.intermediate % tensor_parallel == large % small == 0


def _engine(config: RunConfig, sizes: ModelSizes) -> list[str]:
    engine, problems = config.rollout.engine, []
    tensor_parallel, stages = (int(engine.get(f"{axis}_parallel_size", 1)) for axis in ("tensor", "pipeline"))
    if not _is_even(sizes, tensor_parallel):
        problems.append(
            f"rollout.engine.tensor_parallel_size is {tensor_parallel}: vLLM splits the model's "
            f"{sizes.num_heads} attention heads, {sizes.num_kv_heads} of them for keys and values, and "
            f"{sizes.intermediate} values inside a layer into equal parts"
        )
    if stages > sizes.num_layers:
        problems.append(
            f"rollout.engine.pipeline_parallel_size is {stages}: the model has {sizes.num_layers} layers to "
            "share out"
        )
    return problems


def _lengths(config: RunConfig, batch: Batch) -> list[str]:
    longest, context = batch.longest_sample, config.rollout.engine.get("max_model_len")
    sample = (
        f"the longest sample has {longest} tokens ({batch.longest_prompt} of the prompt, rollout.max_tokens "
        f"{batch.max_completion})"
    )
    problems = []
    if longest > config.learner.micro_batch_tokens:
        budget = config.learner.micro_batch_tokens
        problems.append(
            f"{sample}, learner.micro_batch_tokens is {budget}: raise it to {longest} at least, or lower "
            "rollout.max_tokens"
        )
    if context is not None and longest > int(context):
        problems.append(
            f"{sample}, rollout.engine.max_model_len is {context}: raise it to {longest} at least, or lower "
            "rollout.max_tokens"
        )
    return problems


def _cache(config: RunConfig, sizes: ModelSizes, batch: Batch, hardware: Hardware) -> list[str]:
    rollout = rollout_memory(config, sizes, batch, hardware)
    group = batch.longest_prompt + batch.num_samples * batch.max_completion
    if rollout.cache_tokens >= group:
        return []
    is_given = hardware.is_cpu or config.rollout.engine.get("kv_cache_memory_bytes")
    key = "kv_cache_memory_bytes" if is_given else "gpu_memory_utilization"
    return [
        f"rollout: {_gb(rollout.num_bytes)} leave {_gb(max(rollout.cache, 0))} for keys and values, "
        f"{rollout.cache_tokens:.0f} tokens; one group needs up to {group}: raise rollout.engine.{key}, or "
        "lower rollout.samples_per_prompt or rollout.max_tokens"
    ]


def _on_cpus(config: RunConfig, roles: Sequence[Role], hardware: Hardware) -> list[str]:
    problems = []
    cpus = sum(role.count * role.num_gpus for role in roles)
    cores = config.cluster.num_cpus or hardware.num_gpus
    if cpus > cores + 1e-9:
        problems.append(
            f"the actors ask for {cpus:g} CPUs ({_each(roles, 'num_cpus')}), the machine has {cores:g}: "
            "lower num_cpus or the count of a role"
        )
    need = sum(role.count * role.num_bytes for role in roles)
    if need > hardware.host_memory_gb * 1e9 * (1 - RESERVE):
        largest = max(roles, key=lambda role: role.count * role.num_bytes)
        problems.append(
            f"all roles together take {_gb(need)}, the machine has {hardware.host_memory_gb:.0f} GB; most of "
            f"it {largest.name}: {_keys_of(largest.name)}"
        )
    return problems


def _gpus(roles: Sequence[Role], devices: Sequence[Device], hardware: Hardware) -> list[str]:
    problems = []
    for role in roles:
        if role.name in ("rollout", "learner") and role.num_gpus == 0:
            problems.append(f"{role.name}.num_gpus is 0: it would run on CPUs; give it GPUs")
        if role.num_gpus > hardware.gpus_per_node:
            problems.append(
                f"{_section(role.name)}.num_gpus is {role.num_gpus:g}: the GPUs of one actor lie on one "
                f"node, which has {hardware.gpus_per_node}"
            )
    if len(devices) > hardware.num_gpus:
        problems.append(
            f"the roles ask for {len(devices)} GPUs, {hardware.name} has {hardware.num_gpus} "
            f"({hardware.num_nodes} x {hardware.gpus_per_node}): lower counts or num_gpus of "
            f"{_each(roles, 'num_gpus')}"
        )
    return problems


def _gpu_memory(devices: Sequence[Device], hardware: Hardware) -> list[str]:
    limit = hardware.memory_gb * 1e9 * (1 - RESERVE)
    over = {tuple(sorted(set(d.roles))): d.num_bytes for d in devices if d.num_bytes > limit}
    return [
        f"a GPU of {' and '.join(names)} takes {_gb(num_bytes)} of {hardware.memory_gb:.0f} GB: "
        + "; ".join(map(_keys_of, names))
        for names, num_bytes in over.items()
    ]


def _main_memory(config: RunConfig, devices: Sequence[Device], hardware: Hardware) -> list[str]:
    """The node whose actors take most; its GPUs are given out in order, as Ray packs them."""
    size = hardware.gpus_per_node
    nodes: list[dict[str, float]] = [{} for _ in range(0, max(1, len(devices)), size)]
    for i, device in enumerate(devices):
        node = nodes[i // size]
        node |= {name: node.get(name, 0.0) + num_bytes for name, num_bytes in device.host.items()}
    nodes[-1]["other rewards"] = cpu_rewards(config)
    most = max(nodes, key=lambda node: sum(node.values()))
    total = sum(most.values())
    if total <= hardware.host_memory_gb * 1e9 * (1 - RESERVE):
        return []
    parts = ", ".join(f"{name} {_gb(most[name])}" for name in sorted(most, key=lambda name: -most[name]))
    return [
        f"the actors of one node take {_gb(total)} of main memory ({parts}), it has "
        f"{hardware.host_memory_gb:.0f} GB: learner.offload_optimizer and learner.offload_parameters keep "
        "states there, learner.lora with learner.zero_stage below 3 loads the whole checkpoint once a rank, "
        "cluster.colocate lays sleeping engines there"
    ]


def _each(roles: Sequence[Role], key: str) -> str:
    counts = {"rollout": "num_replicas", "learner": "num_ranks", "reference": "num_replicas"}
    return ", ".join(
        f"{_section(role.name)}.{counts.get(role.name, 'replicas')} {role.count} x {key} {role.num_gpus:g}"
        for role in roles
    )


def _section(role: str) -> str:
    return f"rewards.{role.removeprefix('reward ')}" if role.startswith("reward ") else role


def _keys_of(role: str) -> str:
    """The keys that decide a role's memory."""
    keys = {
        "rollout": "rollout.engine.gpu_memory_utilization",
        "learner": "learner.micro_batch_tokens, learner.activation_checkpointing, learner.zero_stage, "
        "learner.offload_optimizer, learner.lora.rank",
        "reference": "reference.micro_batch_tokens, learner.precision",
    }
    return f"lower or set {keys.get(role, f'{_section(role)}.args.engine.gpu_memory_utilization')}"


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
