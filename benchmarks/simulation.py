"""Simulates step time and utilisation of the loop at 8 to 4096 GPUs.

Rollouts take turns with updates, run one step ahead, or run four ahead.

    python -m benchmarks.simulation [--quick] [--json FILE] [--gate]

SIMULATION_PNG in the environment names a file for a picture of the curves.

The model is Qwen2.5-Omni-7B on H100s, with 4 prompts of 8 samples per GPU and step, so that the work grows
with the cluster. 5 of 16 GPUs generate, 10 learn, 1 scores (the split of the ready configuration for 64).
Completions have 256 tokens on average with a long tail (lognormal, standard deviation equal to the mean), cut
at 2048. Engine, learner and scoring speeds are `rlcore plan`'s. The controller is taken to cost nothing,
unless CONTROLLER_MS gives milliseconds per group. Nothing here was measured on GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Row, finish, parse_arguments
from benchmarks.simulator import Loop, simulate
from rlcore.config import load_config
from rlcore.plan.hardware import Efficiency, load_hardware
from rlcore.plan.planner import engine_of, phases_of, with_settings
from rlcore.plan.sizes import QWEN2_5_OMNI_7B
from rlcore.plan.workload import Batch, Workload, completion_lengths

CONFIGS = Path(__file__).resolve().parents[1] / "emotion_task" / "configs" / "omni"
NUM_GPUS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
WORKLOAD = Workload(completion_tokens=256, length_spread=1.0)
SETTINGS: dict[str, dict[str, Any]] = {
    "take turns": {"staleness": 0},
    "take turns, a quarter more prompts": {"staleness": 0, "oversample": 0.25},
    "one step ahead": {"staleness": 1},
    "four steps ahead": {"staleness": 4},
}
NUM_STEPS = 10
"""Number of steps, twice the most rounds that are open at once: bursts over that many rounds are averaged
out."""
LENGTH_GRID = 16
"""Lengths are rounded up to multiples of this: sequences that end together are one event."""


def loop_of(num_gpus: int) -> Loop:
    """Returns the loop on a cluster of this size."""
    replicas = max(2, num_gpus * 5 // 16)
    others = max(1, num_gpus // 16)
    config = with_settings(
        load_config([CONFIGS / "base.yaml", CONFIGS / "7b_64gpu.yaml"]),
        {
            "train.prompts_per_step": 4 * num_gpus,
            "rollout.max_tokens": 2048,
            "rollout.num_replicas": replicas,
            "learner.num_ranks": num_gpus - replicas - others,
            "reference.num_replicas": others,
        },
    )
    reasoning = replace(config.rewards["reasoning"], replicas=others)
    config = replace(config, rewards={**config.rewards, "reasoning": reasoning})
    hardware, efficiency = load_hardware(f"h100-80g:8x{num_gpus // 8}"), Efficiency()
    batch = Batch(config, WORKLOAD)
    phases = phases_of(config, QWEN2_5_OMNI_7B, batch, hardware, efficiency)
    engine = engine_of(config, QWEN2_5_OMNI_7B, batch, hardware, efficiency)

    def lengths(rng: np.random.Generator, count: int) -> np.ndarray:
        drawn = completion_lengths(WORKLOAD, config.rollout.max_tokens, rng.uniform(1e-9, 1, size=count))
        return -(-drawn // LENGTH_GRID) * LENGTH_GRID

    def step_seconds(num_active: float, num_cached: float) -> float:
        return float(engine.step_seconds(np.asarray(num_active), np.asarray(num_cached)))

    def prefill_seconds(tokens: float) -> float:
        return engine.prefill_seconds(tokens / batch.prompt_length, batch.prompt_length, 0.0)

    return Loop(
        num_engines=replicas,
        prompts_per_step=batch.num_prompts,
        samples_per_prompt=batch.num_samples,
        prompt_length=batch.prompt_length,
        max_num_seqs=engine.max_num_seqs,
        lengths=lengths,
        step_seconds=step_seconds,
        prefill_seconds=prefill_seconds,
        score_seconds=phases.score,
        update_seconds=phases.update,
        sync_seconds=phases.weight_sync,
        controller_seconds=float(os.environ.get("CONTROLLER_MS", "0")) / 1000,
    )


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws step time, and the shares of engines' and learner's time that are used, over the number of
    GPUs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = {
        "step_s": "seconds a step",
        "engines": "engines' time used",
        "learner": "learner's time used",
    }
    for axes, (key, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for setting in SETTINGS:
            points = [(row["gpus"], row[key]) for row in rows if row["setting"] == setting]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=setting)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("GPUs (4 prompts a GPU)")
        axes.set_title(title, fontsize=10)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=4)
    figure.savefig(path)


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    sizes = NUM_GPUS[:5] if arguments.quick else NUM_GPUS
    rows: list[dict[str, Any]] = []
    for num_gpus in sizes:
        loop = loop_of(num_gpus)
        for setting, changes in SETTINGS.items():
            result = simulate(replace(loop, **changes), num_steps=NUM_STEPS)
            rows.append(
                {
                    "gpus": num_gpus,
                    "setting": setting,
                    "step_s": result.step_seconds,
                    "engines": result.engine_utilization,
                    "learner": result.learner_utilization,
                    "staleness": result.mean_staleness,
                    "sequences_per_s": loop.prompts_per_step * loop.samples_per_prompt / result.step_seconds,
                }
            )
    last = {row["setting"]: row for row in rows if row["gpus"] == sizes[-1]}
    turns = last["take turns"]["step_s"]
    headline = {
        "gpus": sizes[-1],
        "turns_s": turns,
        "one_ahead": turns / last["one step ahead"]["step_s"],
        "four_ahead": turns / last["four steps ahead"]["step_s"],
        "more_prompts": turns / last["take turns, a quarter more prompts"]["step_s"],
    }
    if picture := os.environ.get("SIMULATION_PNG"):
        draw(rows, Path(picture))
    goals = {"running ahead is faster at every size": all(_ahead_is_faster(rows, n) for n in sizes)}
    finish("simulation", rows, headline, goals, arguments)


def _ahead_is_faster(rows: Sequence[dict[str, Any]], num_gpus: int) -> bool:
    of_size = {row["setting"]: row["step_s"] for row in rows if row["gpus"] == num_gpus}
    return of_size["one step ahead"] < of_size["take turns"]


if __name__ == "__main__":
    main()
