"""The curves of a run as PNG files, drawn from its metrics.jsonl."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from rlcore.records.files import JsonObject, replaced
from rlcore.records.tracking import read_metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A picture in which every metric that matches one of the patterns becomes a line."""

    name: str
    """File name without suffix."""
    title: str
    patterns: tuple[str, ...]
    """Patterns of metrics, as `fnmatch` reads them; `*` matches slashes too."""
    but_not: tuple[str, ...] = ()
    """Patterns of metrics that are left out."""
    log_scale: bool = False


PLOTS = (
    Plot(name="rewards", title="Rewards", patterns=("reward/*",), but_not=("reward/*/*", "reward/masked")),
    Plot(name="reward_parts", title="Rewards by part", patterns=("reward/*/*",)),
    Plot(name="accuracy", title="Accuracy on held-out prompts", patterns=("eval/*accuracy*", "eval/*f1*")),
    Plot(
        name="eval",
        title="Held-out metrics",
        patterns=("eval/*rate*", "eval/*reward*"),
        but_not=("eval/reward/*/*",),
    ),
    Plot(name="eval_parts", title="Held-out rewards by part", patterns=("eval/reward/*/*",)),
    Plot(name="ptr", title="Trust weight (tau) and gate", patterns=("ptr/*",)),
    Plot(name="kl", title="KL to the reference (nats per token)", patterns=("kl",)),
    Plot(name="entropy", title="Entropy of the policy (nats per token)", patterns=("entropy",)),
    Plot(name="lengths", title="Tokens per completion", patterns=("completion/tokens",)),
    Plot(name="truncated", title="Completions cut at max_tokens", patterns=("completion/truncated",)),
    Plot(
        name="logprob_diff",
        title="Rollout against learner: |difference of log-probability|",
        patterns=("logprob_*diff",),
        log_scale=True,
    ),
    Plot(name="update", title="Gradient norm and clipped share", patterns=("grad_norm", "clip_fraction")),
    Plot(name="seconds", title="Seconds per step, by phase", patterns=("seconds/*",)),
)

SMOOTHING = 20
"""A line of more points than this is drawn pale, with its running mean over a twentieth of it on top."""


def plot_run(run_dir: str | Path, plots: Sequence[Plot] = PLOTS) -> list[Path]:
    """Draws the pictures that have data into `run_dir/plots` and returns their paths. Where they cannot be
    written, a warning says so, and what is drawn so far is returned.

    Raises:
        DataError: `run_dir` holds no metrics.jsonl.
    """
    rows = read_metrics(run_dir)
    folder = Path(run_dir) / "plots"
    paths: list[Path] = []
    for plot in plots:
        series = _series(rows, plot)
        if not series:
            continue
        try:
            with replaced(folder / f"{plot.name}.png") as partial:
                _draw(plot, series, partial)
        except OSError as error:
            log.warning("%s: not all plots are drawn: %s", folder, error)
            break
        paths.append(folder / f"{plot.name}.png")
    return paths


def _series(rows: Sequence[JsonObject], plot: Plot) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the steps and values of each metric in the plot, missing values left out."""
    names = sorted({name for row in rows for name in row})
    series = {}
    for name in names:
        if _matches(name, plot.patterns) and not _matches(name, plot.but_not):
            points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
            if points:
                steps, values = zip(*points, strict=True)
                series[name] = np.asarray(steps), np.asarray(values, dtype=float)
    return series


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _draw(plot: Plot, series: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    # The object interface with the Agg canvas: no display, and no figure kept by pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, (steps, values) in series.items():
        if len(values) > SMOOTHING:
            (line,) = axes.plot(steps, values, linewidth=0.8, alpha=0.3)
            window = max(len(values) // SMOOTHING, 2)
            axes.plot(steps, _running_mean(values, window), color=line.get_color(), linewidth=2, label=name)
        else:
            axes.plot(steps, values, marker="o", markersize=3, linewidth=1.5, label=name)
    if plot.log_scale:
        axes.set_yscale("log")
    axes.set_title(plot.title)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="best", ncols=1 + len(series) // 8)
    figure.savefig(path, format="png")


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Returns the mean of the last `window` values at each place, of fewer at the start: [N] to [N]."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
