"""Measures when the default progressive gate opens, on simulated curves of accuracy over a run of 3000 steps.

    python -m benchmarks.progressive_gate [--quick] [--json FILE] [--gate] [--plot FILE]

A step has 16 prompts of 8 samples; the prompts of a step differ in difficulty. The gate is the one that
`algorithm.ptr` builds by default. Goals: never open at a level of 0.45, open within two windows of stability
at 0.55, closed while accuracy climbs by 1.5 times `max_spread` a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.report import Row, argument_parser, finish
from rlcore.algorithms.ptr_schedule import RewardSchedule
from rlcore.config import AlgorithmConfig, PTRConfig, RewardConfig, RunConfig, TrainConfig
from rlcore.loop.mixing import make_schedule

NUM_STEPS, WINDOW = 3000, 150
NUM_PROMPTS, NUM_SAMPLES = 16, 8
RUNS, QUICK_RUNS = 200, 20


@dataclass(frozen=True)
class Curve:
    """A curve of accuracy."""

    name: str
    levels: np.ndarray
    """float64 [N]: accuracy at each step."""


def climb(times: float) -> np.ndarray:
    """Returns a climb from 0.2 to 0.95 by `times` the default `max_spread` a window."""
    return np.linspace(0.2, 0.95, round(0.75 / (times * PTRConfig().max_spread) * WINDOW))


CURVES = (
    Curve("level 0.45", np.full(NUM_STEPS, 0.45)),
    Curve("level 0.55", np.full(2 * WINDOW, 0.55)),
    Curve(
        "0.2 to 0.55 in 600 steps, then level", np.r_[np.linspace(0.2, 0.55, 600), np.full(2 * WINDOW, 0.55)]
    ),
    Curve("climbing by max_spread a window", climb(1.0)),
    Curve("climbing by 1.25 of it", climb(1.25)),
    Curve("climbing by 1.5 of it", climb(1.5)),
)


def outcomes(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns mean outcomes [N] of steps whose prompts have difficulties of their own."""
    difficulty = rng.beta(levels[:, None], 1 - levels[:, None], (len(levels), NUM_PROMPTS))
    return rng.binomial(NUM_SAMPLES, difficulty).mean(1) / NUM_SAMPLES


def default_gate() -> RewardSchedule:
    """Returns the gate of a run of 3000 steps that sets nothing."""
    rewards = {name: RewardConfig(target="a:Reward") for name in ("outcome", "reasoning")}
    ptr = PTRConfig(outcome="outcome", reasoning="reasoning")
    return make_schedule(
        RunConfig(rewards=rewards, algorithm=AlgorithmConfig(ptr=ptr), train=TrainConfig(num_steps=NUM_STEPS))
    )


def opening(values: np.ndarray) -> int | None:
    """Returns after how many steps the gate opens; None: it does not."""
    gate = default_gate()
    for step, value in enumerate(values, start=1):
        gate.observe(float(value))
        if gate.factor(step):
            return step
    return None


def plot(path: Path) -> None:
    """Draws one run: outcome means, the accuracy behind them, and the gate."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    levels = np.r_[np.linspace(0.2, 0.55, 600), np.full(600, 0.55)]
    values = outcomes(levels, np.random.default_rng(0))
    opened = opening(values)
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(values, ".", markersize=2, color="0.6", label="mean outcome of a step")
    axes.plot(levels, color="tab:blue", label="accuracy")
    axes.axhline(PTRConfig().threshold, color="0.4", linestyle="--", linewidth=1, label="threshold")
    if opened is not None:
        axes.axvspan(opened, len(levels), color="tab:green", alpha=0.15, label=f"open, from step {opened}")
    axes.set(xlabel="step", ylim=(0, 1), xlim=(0, len(levels)))
    axes.legend(loc="upper left", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs the benchmark."""
    parser = argument_parser(__doc__ or "")
    parser.add_argument("--plot", type=Path, help="also draw one run to this PNG file")
    arguments = parser.parse_args()
    num_runs = QUICK_RUNS if arguments.quick else RUNS
    rows: list[Row] = []
    shares: dict[str, float] = {}
    for curve in CURVES:
        seeds = range(num_runs)
        found = [opening(outcomes(curve.levels, np.random.default_rng(seed))) for seed in seeds]
        opened = [step for step in found if step is not None]
        shares[curve.name] = len(opened) / num_runs
        rows.append(
            {
                "accuracy": curve.name,
                "steps": len(curve.levels),
                "opened": f"{len(opened)} of {num_runs}",
                "median step": int(np.median(opened)) if opened else "-",
            }
        )
    goals = {
        "never opens at 0.45": shares["level 0.45"] == 0,
        "opens within two windows at 0.55": shares["level 0.55"] == 1,
        "closed while accuracy climbs by 1.5 max_spread a window": shares["climbing by 1.5 of it"] == 0,
    }
    if arguments.plot:
        plot(arguments.plot)
    headline = {"window": WINDOW, "threshold": PTRConfig().threshold, "max_spread": PTRConfig().max_spread}
    finish("progressive_gate", rows, headline, goals, arguments)


if __name__ == "__main__":
    main()
