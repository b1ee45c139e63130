"""Updates of a learner with the shapes of real models: speed, share of the peak, memory against the plan."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from benchmarks.gpu_check.measure import ATTENTION, forget_peak, kernels_of, peak_gb, seconds_of
from benchmarks.gpu_check.models import (
    free_port,
    made_up,
    make_groups,
    objective_of,
    omni_config,
    text_config,
)
from benchmarks.gpu_check.record import Record
from rlcore.algorithms.batching import micro_batches, num_packed_tokens
from rlcore.config import (
    LearnerConfig,
    LoRAConfig,
    ModelConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    TargetConfig,
    TrainConfig,
)
from rlcore.plan.hardware import Efficiency, this_machine
from rlcore.plan.memory import MicroBatch, learner_memory
from rlcore.plan.phases import update_flops, update_seconds
from rlcore.plan.sizes import sizes_of_config
from rlcore.plan.workload import AUDIO_TOKENS_PER_S, Batch, Workload
from rlcore.types import TrainGroup


def small(record: Record, device: str, *, tiny: bool) -> None:
    """Trains all weights of a text model of 0.5B, with ZeRO 2."""
    shape = {
        "num_groups": 1 if tiny else 16,
        "prompt": 20 if tiny else 100,
        "samples": 8,
        "completion": 16 if tiny else 256,
    }
    learner = LearnerConfig(zero_stage=2, precision="autocast", micro_batch_tokens=8192, timeout_s=120)
    _measure(record, device, text_config(tiny=tiny), learner, shape, audio_tokens=0)


def omni(record: Record, device: str, *, tiny: bool) -> None:
    """Trains adapters on a model of Qwen2.5-Omni-7B's shape, with 6 s of sound in each prompt, as the ready
    configurations do on one GPU."""
    shape = {
        "num_groups": 1 if tiny else 8,
        "prompt": 20 if tiny else 100,
        "samples": 8,
        "completion": 16 if tiny else 246,
    }
    learner = LearnerConfig(
        zero_stage=2,
        precision="autocast",
        activation_checkpointing=True,
        lora=LoRAConfig(rank=16),
        micro_batch_tokens=8192,
        micro_batch_audio_frames=48_000,
        timeout_s=120,
    )
    _measure(record, device, omni_config(tiny=tiny), learner, shape, audio_tokens=25 if tiny else 150)


def _measure(
    record: Record,
    device: str,
    config: PretrainedConfig,
    learner: LearnerConfig,
    shape: dict[str, int],
    *,
    audio_tokens: int,
) -> None:
    from rlcore.engines.deepspeed_engine import DeepSpeedEngine

    os.environ["MASTER_PORT"] = free_port()
    groups = make_groups(config, **shape, audio_tokens=audio_tokens)
    objective = objective_of(groups)
    model = ModelConfig(path="made-up", media="raw" if audio_tokens else "embeds", dtype="bfloat16")
    with tempfile.TemporaryDirectory() as folder, made_up(config, Path(folder), device) as path:
        engine = DeepSpeedEngine(path, model, learner, num_steps=10, seed=0)

        def update() -> None:
            engine.update([(groups, objective)])

        update()  # buffers, and Adam's state
        forget_peak(device)
        seconds = seconds_of(update, device, repeats=2)
        peak = peak_gb(device)
        num_tokens = sum(map(num_packed_tokens, groups))
        planned_seconds, planned_peak, flops, peak_flops = _planned(
            config, model, learner, groups, shape, audio_tokens, device
        )
        expected = f"planned {num_tokens / planned_seconds:.0f}"
        record.measured(
            "tokens of prompts and completions", num_tokens / seconds, "a second", expected=expected
        )
        record.measured("of it completions", objective.totals.num_tokens / seconds, "tokens a second")
        share = flops / seconds / peak_flops
        record.measured(
            "model operations, of the card's matrix products",
            100 * share,
            "%",
            expected=f"planned {100 * Efficiency().train:.0f}",
        )
        if device == "cuda":
            # What the plan adds for allocator and context is not in it.
            record.measured("peak of memory", peak, "GB", at_most=1.1 * planned_peak / 1e9)
            record.measured("planned for it", planned_peak / 1e9, "GB")
        else:
            record.measured(
                "resident memory", peak, "GB", expected=f"planned {planned_peak / 1e9:.2g} beside libraries"
            )
        kernels = kernels_of(update, device)
        for index, (name, part) in enumerate(kernels[:5], 1):
            record.measured(f"kernel {index} by time", name[:90], f"({part:.0%})")
        attention = [(name, part) for name, part in kernels if ATTENTION.search(name)]
        for name, part in attention[:4]:
            record.measured("attention", name[:90], f"({part:.0%})")
        engine.close()


def _planned(
    config: PretrainedConfig,
    model: ModelConfig,
    learner: LearnerConfig,
    groups: Sequence[TrainGroup],
    shape: dict[str, int],
    audio_tokens: int,
    device: str,
) -> tuple[float, float, float, float]:
    """Seconds, bytes and operations of an update as `rlcore plan` has them, and the device's rate."""
    target: Any = TargetConfig(target="made:up")
    run = RunConfig(
        model=model,
        task=target,
        rewards={"one": RewardConfig(target="made:up")},
        rollout=RolloutConfig(samples_per_prompt=shape["samples"], max_tokens=shape["completion"]),
        train=TrainConfig(prompts_per_step=shape["num_groups"]),
        learner=learner,
    )
    workload = Workload(
        prompt_tokens=shape["prompt"],
        audio_seconds=audio_tokens / AUDIO_TOKENS_PER_S,
        completion_tokens=shape["completion"],
        length_spread=0.0,
    )
    batch, sizes, hardware = Batch(run, workload), sizes_of_config(config), this_machine(device)
    batches = micro_batches(groups, learner.micro_batch_tokens, learner.micro_batch_audio_frames)
    largest = max(batches, key=lambda one: sum(map(num_packed_tokens, one)))
    micro_batch = MicroBatch(
        num_groups=len(largest),
        num_rows=sum(len(group.token_ids) for group in largest),
        prompt=shape["prompt"] + audio_tokens,
        completion=shape["completion"],
        longest=shape["completion"],
    )
    count = len(batches)
    memory = learner_memory(sizes, model, learner, micro_batch, hardware, num_micro_batches=count)
    seconds = update_seconds(run, sizes, batch, hardware, Efficiency(), num_micro_batches=count)
    rate = hardware.tflops(learner.compute_dtype) * 1e12
    return seconds, memory.peak, update_flops(run, sizes, batch), rate
