"""Measures workloads on the real loop, one after the other. Each row is handed out as soon as it is there."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypedDict

from rlcore.actors.session import ray_session
from rlcore.bench.machine import environment
from rlcore.bench.measure import measure
from rlcore.bench.roofline import measure_ceilings, shares
from rlcore.bench.workloads import WORKLOADS, Workload
from rlcore.config import RunConfig, load_config, save_config
from rlcore.config.io import check
from rlcore.errors import ConfigError
from rlcore.plan.hardware import Hardware
from rlcore.plan.sizes import sizes_of

OWN_KEYS = ("task", "rewards", "rollout.max_tokens", "rollout.samples_per_prompt", "train.prompts_per_step")
"""Sections and keys that make the workload: a file that changes them would measure something else."""


class Row(TypedDict):
    """A row is all that was measured on one workload, as JSON-ready values."""

    name: str
    samples_per_second: float
    tokens_per_second: float
    step_seconds: float
    """Median over the counted steps."""
    steps: list[float]
    """Seconds of each counted step."""
    seconds: dict[str, float]
    """Median seconds of a step by phase."""
    peak_mb: dict[str, float]
    """Highest resident memory by process."""
    roofline: list[dict[str, float | str]]
    """The fields of each `rlcore.bench.roofline.Share`, and `share`."""
    load: float
    """Load average of the machine after the run."""


def run_workloads(
    workloads: Sequence[str],
    *,
    files: Sequence[str] = (),
    num_steps: int = 8,
    on_row: Callable[[Row], None] = lambda row: None,
) -> dict[str, object]:
    """Measures workloads (all of them, unless named) and returns the result as JSON-ready values.

    Args:
        files: configurations laid over the workload's own, for another model, layout or GPUs.
        num_steps: steps that are counted.
        on_row: is given each workload's row as soon as it is measured.

    Raises:
        ConfigError: no such workload, no step, or a file that changes the workload itself.
    """
    check(num_steps >= 1, "--steps", num_steps, "at least 1")
    if unknown := [name for name in workloads if name not in WORKLOADS]:
        raise ConfigError(f"--workload: got {unknown[0]!r}, must be one of {', '.join(WORKLOADS)}")
    # Engines share the cores as processes: a thread pool in each would only fight the others.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        chosen = [WORKLOADS[one] for one in workloads or WORKLOADS]
        configs = [_config(workload, Path(name) / workload.name, files) for workload in chosen]
        on_gpu = configs[0].rollout.num_gpus > 0
        ceilings = measure_ceilings("cuda" if on_gpu else "cpu")
        with ray_session(configs[0].cluster):
            for workload, config in zip(chosen, configs, strict=True):
                rows.append(_measured(workload, config, ceilings, num_steps))
                on_row(rows[-1])
    return {
        "benchmark": "rlcore bench",
        **environment(),
        "config": [Path(file).read_text(encoding="utf-8") for file in files],
        "ceilings": asdict(ceilings),
        "workloads": rows,
    }


def _config(workload: Workload, folder: Path, files: Sequence[str]) -> RunConfig:
    base = folder / "workload.yaml"
    own = workload.config(folder)
    save_config(own, base)
    config = load_config([base, *files])
    for key in OWN_KEYS:
        section, _, name = key.partition(".")
        one, other = getattr(own, section), getattr(config, section)
        if name:
            one, other = getattr(one, name), getattr(other, name)
        if one != other:
            raise ConfigError(f"{key}: the workload's own; a file of --config must leave it out")
    # The processor's tables of lengths stay, whatever engine arguments a file adds.
    engine = {**config.rollout.engine, **own.rollout.engine}
    return replace(config, rollout=replace(config.rollout, engine=engine))


def _measured(workload: Workload, config: RunConfig, ceilings: Hardware, num_steps: int) -> Row:
    measured = measure(config, num_steps=num_steps)
    audio_seconds = workload.audio_seconds
    reached = shares(measured, config, sizes_of(config.model), ceilings, audio_seconds=audio_seconds)
    return {
        "name": workload.name,
        "samples_per_second": measured.samples_per_second,
        "tokens_per_second": measured.tokens_per_second,
        "step_seconds": statistics.median(measured.step_seconds),
        "steps": list(measured.step_seconds),
        "seconds": measured.phases,
        "peak_mb": measured.peak_mb,
        "roofline": [{**asdict(share), "share": share.share} for share in reached],
        "load": round(os.getloadavg()[0], 2),
    }
