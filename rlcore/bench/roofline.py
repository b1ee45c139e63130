"""The share of the machine's measured ceilings that each phase reaches (Williams et al. 2009,
doi:10.1145/1498765.1498785): decoding against the memory's bandwidth, training against matrix products,
weight pushes against plain copies. Work is counted as in `rlcore.plan`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rlcore.bench.measure import Measured
from rlcore.config import RunConfig
from rlcore.errors import RLCoreError
from rlcore.plan.hardware import Efficiency, Hardware
from rlcore.plan.phases import Engine, pushed_values, update_flops
from rlcore.plan.roles import largest_batch
from rlcore.plan.sizes import ModelSizes
from rlcore.plan.workload import Batch, Workload

_MEASURE_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A phase of one engine, or of all learner ranks, against the ceiling of the machine."""

    phase: str
    seconds: float
    """Seconds per step that were spent in the phase."""
    work: float
    """Work per step, in 10^9 bytes or floating-point operations."""
    unit: str
    """Unit of `rate` and `ceiling`: `GB/s` or `GFLOP/s`."""
    rate: float
    ceiling: float

    @property
    def share(self) -> float:
        """The share of the ceiling that was reached."""
        return self.rate / self.ceiling


@dataclass(frozen=True)
class _StepBatch(Batch):
    """A batch with the lengths that were measured, in the place of planned ones."""

    lengths_seen: tuple[int, ...] = ()
    prompt_tokens_seen: int = 0

    @property
    def prompt_length(self) -> int:
        return self.prompt_tokens_seen

    @property
    def completion_length(self) -> float:
        return sum(self.lengths_seen) / len(self.lengths_seen)


def measure_ceilings(device: str) -> Hardware:
    """Measures this machine's rates (`rlcore.plan.hardware.this_machine`) in a process of its own.

    When that process ends, it gives a GPU back whole.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        RLCoreError: the device cannot be measured.
    """
    program = (
        "import dataclasses, json, sys; from rlcore.plan.hardware import this_machine; "
        "print(json.dumps(dataclasses.asdict(this_machine(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, device],
        capture_output=True,
        text=True,
        timeout=_MEASURE_S,
        check=False,
    )
    if done.returncode:
        raise RLCoreError(f"the ceilings of {device} could not be measured: {done.stderr[-500:]}")
    try:
        return Hardware(**json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError) as error:
        raise RLCoreError(
            f"the ceilings of {device} could not be read: {done.stdout[-200:] or '(nothing)'} is no JSON"
        ) from error


def shares(
    measured: Measured, config: RunConfig, sizes: ModelSizes, hardware: Hardware, *, audio_seconds: float
) -> list[Share]:
    """Returns rollout, update and weight sync of the run against the ceilings, which `hardware` holds."""
    workload = Workload(audio_seconds=audio_seconds)
    num_steps, seconds = len(measured.lengths), measured.busy_seconds
    read = flops = 0.0
    for lengths in measured.lengths:
        batch = _StepBatch(config, workload, lengths, measured.prompt_tokens)
        read += _decode_gigabytes(config, sizes, batch, lengths, hardware)
        flops += config.learner.updates_per_batch * update_flops(config, sizes, batch)
    num_values, size = pushed_values(config, sizes)
    products = hardware.tflops(config.learner.compute_dtype) * 1e3 * config.learner.num_ranks
    rows = (
        ("rollout", read / num_steps, "GB/s", hardware.bandwidth_gb_s),
        ("update", flops / num_steps / 1e9, "GFLOP/s", products),
        # A copy reads and writes: half of what the memory moves.
        ("weight_sync", size * num_values / 1e9, "GB/s", hardware.bandwidth_gb_s / 2),
    )
    return [
        Share(
            phase=phase,
            seconds=seconds[phase],
            work=work,
            unit=unit,
            rate=work / seconds[phase],
            ceiling=ceiling,
        )
        for phase, work, unit, ceiling in rows
    ]


def _decode_gigabytes(
    config: RunConfig, sizes: ModelSizes, batch: Batch, lengths: Sequence[int], hardware: Hardware
) -> float:
    """Returns the gigabytes that the busiest engine reads for the batch: weights and cache at every token."""
    # On memory of 1 GB/s without any other limit, seconds are gigabytes.
    memory = Hardware(bandwidth_gb_s=1.0, bf16_tflops=1e12, fp32_tflops=1e12)
    engine = Engine(
        sizes=sizes,
        hardware=memory,
        efficiency=Efficiency(decode=1.0, decode_step_s=0.0, prefill=1.0),
        dtype=config.rollout_dtype,
        tensor_parallel=config.rollout.workers_per_engine,
        max_num_seqs=largest_batch(config, hardware)[0],
    )
    size, replicas = batch.num_samples, config.rollout.min_replicas
    groups = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    dealt = ([n for group in groups[rank::replicas] for n in group] for rank in range(replicas))
    return max(engine.decode_seconds(own, batch.prompt_length) for own in dealt if own)
