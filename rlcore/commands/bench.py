"""`rlcore bench` and `rlcore bench compare`."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlcore.bench.compare import compare
from rlcore.bench.environment import environment
from rlcore.bench.measure import measure
from rlcore.bench.roofline import measure_ceilings, shares
from rlcore.bench.workloads import WORKLOADS, Workload
from rlcore.config import RunConfig, load_config, save_config
from rlcore.config.io import check
from rlcore.errors import ConfigError
from rlcore.plan.hardware import Hardware
from rlcore.records.files import write_json

_OWN = ("task", "rewards", "rollout.max_tokens", "rollout.samples_per_prompt", "train.prompts_per_step")
"""Sections and keys that make the workload: a file that changes them would measure something else."""


def bench(
    *,
    workloads: Sequence[str] = (),
    files: Sequence[str] = (),
    num_steps: int = 8,
    json_path: Path | None = None,
) -> dict[str, Any]:
    """Measures workloads (all of them, unless named) on the real loop, prints them and writes `json_path`.

    `files` are configurations laid over the workload's own, for another model, layout or GPUs.

    Raises:
        ConfigError: no such workload, no step, or a file that changes the workload itself.
    """
    check(num_steps >= 1, "--steps", num_steps, "at least 1")
    if unknown := [name for name in workloads if name not in WORKLOADS]:
        raise ConfigError(f"--workload: got {unknown[0]!r}, must be one of {', '.join(WORKLOADS)}")
    from rlcore.actors.session import ray_session

    # Engines share the cores as processes: a thread pool in each would only fight the others.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        chosen = [WORKLOADS[one] for one in workloads or WORKLOADS]
        configs = [_config(workload, Path(name) / workload.name, files) for workload in chosen]
        on_gpu = configs[0].rollout.num_gpus > 0
        ceilings = measure_ceilings("cuda" if on_gpu else "cpu")
        with ray_session(configs[0].cluster):
            for workload, config in zip(chosen, configs, strict=True):
                rows.append(_measured(workload, config, ceilings, num_steps))
                print(describe(rows[-1]), flush=True)
    result = {
        "benchmark": "rlcore bench",
        **environment(),
        "config": [Path(file).read_text(encoding="utf-8") for file in files],
        "ceilings": asdict(ceilings),
        "workloads": rows,
    }
    if json_path is not None:
        write_json(json_path, result)
    return result


def print_comparison(before: str, after: str, *, threshold: float) -> bool:
    """Prints every measure of two results; whether none is worse by more than `threshold` (a share).

    Raises as `rlcore.bench.compare.compare`.
    """
    changes, warnings = compare(before, after)
    width = max(len(change.name) for change in changes)
    for change in changes:
        mark = "  WORSE" if change.loss > threshold else ""
        print(
            f"{change.name:<{width}}  {change.before:>10.4g} {change.after:>10.4g}  {_signed(change)}{mark}"
        )
    for warning in warnings:
        print(f"note: {warning}")
    worse = sum(change.loss > threshold for change in changes)
    print(f"{worse} of {len(changes)} measures are worse by more than {threshold:.0%}")
    return worse == 0


def _signed(change: Any) -> str:
    return f"{change.after / change.before - 1:+7.1%}" if change.before else "    new"


def _config(workload: Workload, folder: Path, files: Sequence[str]) -> RunConfig:
    base = folder / "workload.yaml"
    own = workload.config(folder)
    save_config(own, base)
    config = load_config([base, *files])
    for key in _OWN:
        section, _, name = key.partition(".")
        one, other = getattr(own, section), getattr(config, section)
        if name:
            one, other = getattr(one, name), getattr(other, name)
        if one != other:
            raise ConfigError(f"{key}: the workload's own; a file of --config must leave it out")
    # The processor's tables of lengths stay, whatever engine arguments a file adds.
    engine = {**config.rollout.engine, **own.rollout.engine}
    return replace(config, rollout=replace(config.rollout, engine=engine))


def _measured(workload: Workload, config: RunConfig, ceilings: Hardware, num_steps: int) -> dict[str, Any]:
    from rlcore.plan.sizes import sizes_of

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


def describe(row: dict[str, Any]) -> str:
    """Some lines for a terminal."""
    seconds = ", ".join(f"{phase} {value:.3f}" for phase, value in row["seconds"].items())
    peaks = ", ".join(f"{process} {peak:.0f}" for process, peak in sorted(row["peak_mb"].items()))
    lines = [
        f"{row['name']}: {row['samples_per_second']:.1f} samples/s, {row['tokens_per_second']:.0f} tokens/s",
        f"  step {row['step_seconds']:.3f} s: {seconds}",
        f"  peak MB: {peaks}",
    ]
    lines += [
        f"  {one['phase']:<12} {one['work']:8.3g} in {one['seconds']:.3f} s: {one['rate']:8.3g} of "
        f"{one['ceiling']:.3g} {one['unit']}, {one['share']:.1%}"
        for one in row["roofline"]
    ]
    return "\n".join(lines)
