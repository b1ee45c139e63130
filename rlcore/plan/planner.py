"""Plans one run: says whether it fits, how long a step is, and what would be better."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlcore.config import RunConfig
from rlcore.plan.hardware import Efficiency, Hardware
from rlcore.plan.phases import (
    Engine,
    Phases,
    judge_seconds,
    prepare_seconds,
    reference_seconds,
    sync_seconds,
    update_seconds,
)
from rlcore.plan.problems import Settings, dictated, find_problems
from rlcore.plan.roles import Device, Role, Rollout, judge_sizes, micro_batch, place, roles_of, rollout_memory
from rlcore.plan.sizes import ModelSizes
from rlcore.plan.workload import Batch, Workload

CHANGES: tuple[Settings, ...] = (
    {"learner.activation_checkpointing": True},
    {"learner.precision": "autocast"},
    {"learner.zero_stage": 3},
    {"learner.micro_batch_tokens": 4096},
    {"reference.micro_batch_tokens": 4096},
    {"learner.precision": "bf16"},
    {"learner.offload_optimizer": "cpu"},
    {"learner.lora.rank": 64},
    {"reference.num_replicas": 0},
    {"learner.zero_stage": 3, "learner.offload_parameters": "cpu"},
    {"model.dtype": "bfloat16"},
    {"rollout.engine.gpu_memory_utilization": 0.45},
    {"rollout.engine.gpu_memory_utilization": 0.3},
)
"""What may make a run fit, what costs least first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A split deals GPUs to roles; `step_seconds` is what a step then takes."""

    rollout_replicas: int
    learner_ranks: int
    reference_replicas: int
    step_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan holds the memory and the time of one run, and advice where the run does not fit."""

    config: RunConfig
    hardware: Hardware
    batch: Batch
    roles: tuple[Role, ...]
    devices: tuple[Device, ...]
    rollout: Rollout
    phases: Phases
    staleness: int
    problems: tuple[str, ...]
    """Reasons why the run does not fit; none where it does."""
    changes: tuple[Settings, ...]
    """Settings with which the run would fit, where some are known."""
    best: Split | None
    """The fastest split of the same number of GPUs; null where roles share GPUs."""

    @property
    def fits(self) -> bool:
        return not self.problems

    @property
    def step_seconds(self) -> float:
        return _step_seconds(self.config, self.phases, self.devices)

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens per second that are trained on."""
        return self.batch.completion_tokens / self.step_seconds

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of `train.num_steps` steps; start, evaluations and checkpoints are left out."""
        return self.config.train.num_steps * self.step_seconds * len(self.devices) / 3600


def make_plan(
    config: RunConfig,
    sizes: ModelSizes,
    hardware: Hardware,
    workload: Workload | None = None,
    efficiency: Efficiency | None = None,
) -> Plan:
    """Computes memory, time and advice for a run. Nothing is read and nothing is started."""
    batch = Batch(config, workload or Workload())
    efficiency = efficiency or Efficiency()
    roles = roles_of(config, sizes, batch, hardware)
    devices = place(roles, colocate=config.cluster.colocate)
    problems = find_problems(config, sizes, batch, hardware)
    return Plan(
        config=config,
        hardware=hardware,
        batch=batch,
        roles=tuple(roles),
        devices=tuple(devices),
        rollout=rollout_memory(config, sizes, batch, hardware),
        phases=phases_of(config, sizes, batch, hardware, efficiency),
        staleness=config.train.staleness,
        problems=tuple(problems),
        changes=_changes(config, sizes, batch, hardware) if problems else (),
        best=_best_split(config, sizes, batch, hardware, efficiency),
    )


def num_chunks(config: RunConfig) -> float:
    """Returns the number of parts in which a step's groups are scored while others are generated."""
    return config.train.prompts_per_step / min(config.train.groups_per_score, config.train.prompts_per_step)


def _step_seconds(config: RunConfig, phases: Phases, devices: Sequence[Device]) -> float:
    """Roles on one GPU take turns, whatever the configuration lets them do at the same time. Rollout and
    learner, where they are colocated, do so anyway (staleness 0)."""
    apart = {"rollout", "learner"} if config.cluster.colocate else {"rollout"}
    is_shared = any("rollout" in device.roles and not apart.issuperset(device.roles) for device in devices)
    if is_shared:
        return phases.rollout + phases.score + phases.update + phases.weight_sync
    return phases.step(config.train.staleness, num_chunks(config))


def phases_of(
    config: RunConfig, sizes: ModelSizes, batch: Batch, hardware: Hardware, efficiency: Efficiency
) -> Phases:
    """Computes the seconds of a step's phases."""
    engine = engine_of(config, sizes, batch, hardware, efficiency)
    num_prompts = math.ceil(batch.num_prompts / config.rollout.min_replicas)
    audio_s = batch.workload.audio_seconds if config.model.media == "raw" else 0.0
    reference = reference_seconds(config, sizes, batch, hardware, efficiency)
    # A learner that is its own reference does one after the other; synchronous, it waits for rollouts anyway.
    takes_turns = config.reference.num_replicas == 0 and config.train.staleness > 0
    scores = [0.0 if takes_turns else reference]
    for reward in config.rewards.values():
        judge = judge_sizes(reward, config, sizes)
        if reward.num_gpus > 0 and judge is not None:
            scores.append(judge_seconds(judge, batch, hardware, efficiency, reward.replicas))
    _, count = micro_batch(config, batch, config.learner.micro_batch_tokens, config.learner.num_ranks)
    return Phases(
        prepare=prepare_seconds(config, sizes, batch, hardware, efficiency),
        prefill=engine.prefill_seconds(num_prompts, batch.prompt_length, audio_s),
        decode=engine.decode_seconds(
            batch.lengths(num_prompts * batch.num_samples).tolist(), batch.prompt_length
        ),
        score=max(scores),
        update=update_seconds(config, sizes, batch, hardware, efficiency, num_micro_batches=count)
        + (reference if takes_turns else 0.0),
        weight_sync=sync_seconds(config, sizes, hardware, efficiency),
    )


def engine_of(
    config: RunConfig, sizes: ModelSizes, batch: Batch, hardware: Hardware, efficiency: Efficiency
) -> Engine:
    """Returns a rollout engine, with the number of sequences that its cache holds at once."""
    return Engine(
        sizes=sizes,
        hardware=hardware,
        efficiency=efficiency,
        dtype=config.rollout_dtype,
        tensor_parallel=int(config.rollout.engine.get("tensor_parallel_size", 1)),
        max_num_seqs=rollout_memory(config, sizes, batch, hardware).num_seqs,
    )


def with_settings(config: RunConfig, settings: Settings) -> RunConfig:
    """Returns the configuration with some keys, dotted, set otherwise."""
    changed: RunConfig = _set(config, {tuple(key.split(".")): value for key, value in settings.items()})
    return changed


def _set(section: Any, settings: Mapping[tuple[str, ...], Any]) -> Any:
    """All keys of a section at once: one may be wrong without the other."""
    if () in settings:
        return settings[()]
    below: dict[str, dict[tuple[str, ...], Any]] = {}
    for (name, *rest), value in settings.items():
        below.setdefault(name, {})[tuple(rest)] = value
    if isinstance(section, Mapping):
        return {**section, **{name: _set(section.get(name), each) for name, each in below.items()}}
    return replace(section, **{name: _set(getattr(section, name), each) for name, each in below.items()})


def _changes(config: RunConfig, sizes: ModelSizes, batch: Batch, hardware: Hardware) -> tuple[Settings, ...]:
    """What the lengths dictate and the smallest set of `CHANGES`, of at most three, with which it fits; the
    first by their order."""
    first = dictated(config, sizes, batch, hardware)
    for count in (0, 1, 2, 3):
        for chosen in itertools.combinations(CHANGES, count):
            settings = {key: value for change in chosen for key, value in change.items()} | dict(first)
            try:
                changed = with_settings(config, settings)
            except ValueError:
                continue  # settings that exclude each other
            if not find_problems(changed, sizes, Batch(changed, batch.workload), hardware):
                return (settings,)
    return ()


def _best_split(
    config: RunConfig, sizes: ModelSizes, batch: Batch, hardware: Hardware, efficiency: Efficiency
) -> Split | None:
    """The fastest of the splits that fit into as many GPUs as the configuration asks for."""
    found: list[Split] = []
    for split in _splits(config, hardware):
        if find_problems(split, sizes, batch, hardware):
            continue
        phases = phases_of(split, sizes, batch, hardware, efficiency)
        found.append(
            Split(
                rollout_replicas=split.rollout.min_replicas,
                learner_ranks=split.learner.num_ranks,
                reference_replicas=split.reference.num_replicas if config.algorithm.kl_coef else 0,
                step_seconds=_step_seconds(split, phases, place(roles_of(split, sizes, batch, hardware))),
            )
        )
    return min(found, key=lambda split: split.step_seconds, default=None)


def _splits(config: RunConfig, hardware: Hardware) -> Iterator[RunConfig]:
    """The configuration with its GPUs dealt otherwise between rollout, learner and reference."""
    rollout, learner, reference = config.rollout, config.learner, config.reference
    if hardware.is_cpu or rollout.num_gpus < 1 or learner.num_gpus < 1:
        return
    total = round(rollout.min_replicas * rollout.num_gpus + learner.num_ranks * learner.num_gpus)
    references = [reference.num_replicas]  # one that shares its GPU stays as it is
    if config.algorithm.kl_coef > 0 and reference.num_replicas > 0 and reference.num_gpus >= 1:
        total += round(reference.num_replicas * reference.num_gpus)
        references = list(range(1, 9))
    most = min(total, config.train.prompts_per_step * rollout.samples_per_prompt)
    for num_references in references:
        taken = num_references * reference.num_gpus if len(references) > 1 else 0.0
        for num_ranks in _counts(most):
            if num_ranks % (learner.ranks_per_node or 1):
                continue
            replicas = int((total - taken - num_ranks * learner.num_gpus) // rollout.num_gpus)
            if replicas < 1:
                break
            yield replace(
                config,
                rollout=replace(rollout, num_replicas=replicas),
                learner=replace(learner, num_ranks=num_ranks),
                reference=replace(reference, num_replicas=num_references),
            )


def _counts(most: int) -> list[int]:
    """All counts up to 8, beyond them those with at most two digits of precision in binary."""
    return [n for n in range(1, most + 1) if n <= 8 or n % (1 << (n.bit_length() - 3)) == 0]
