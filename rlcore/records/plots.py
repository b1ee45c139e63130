"""The curves of a run, drawn from its metrics.jsonl: a picture for each kind, and one sheet of all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcore.records.files import JsonObject, replaced
from rlcore.records.tracking import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
OVERVIEW = ("accuracy", "rewards", "ptr", "kl", "entropy", "lengths", "logprob_diff", "update", "seconds")
"""Plots of the overview, which is one sheet a run, as far as there is data for them."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
"""Okabe and Ito's colours (2008), which the colour-blind can tell apart."""
DASHES = ("-", "--", ":", "-.")
"""Styles of the lines: the second seven have the second one."""
_MAX_LABELS = 12
_LABEL_GAP = 0.055
"""Least distance between two labels, as a share of the height."""

Series = dict[str, tuple[np.ndarray, np.ndarray]]
"""Steps and values of each metric."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Steps that every plot marks."""

    evaluated: Sequence[int]
    gate_opens: int | None
    """First step at which the reasoning reward counts, where it did not from the start."""


def plot_run(run_dir: str | Path, plots: Sequence[Plot] = PLOTS) -> list[Path]:
    """Draws the pictures that have data into `run_dir/plots`, and the overview as PNG, PDF and SVG; returns
    their paths. Where they cannot be written, a warning says so, and what is drawn so far is returned.

    Raises:
        DataError: `run_dir` holds no metrics.jsonl.
    """
    rows = read_metrics(run_dir)
    folder, marks = Path(run_dir) / "plots", _marks(rows)
    drawn = {plot: series for plot in plots if (series := _series(rows, plot))}
    sheet = [(plot, drawn[plot]) for name in OVERVIEW for plot in drawn if plot.name == name]
    pictures = [(f"{plot.name}.png", [(plot, series)]) for plot, series in drawn.items()]
    if sheet:
        pictures += [(f"overview.{form}", sheet) for form in ("png", "pdf", "svg")]
    paths: list[Path] = []
    for name, panels in pictures:
        try:
            with replaced(folder / name) as partial:
                _draw(panels, marks, partial, name.rpartition(".")[2])
        except OSError as error:
            log.warning("%s: not all plots are drawn: %s", folder, error)
            break
        paths.append(folder / name)
    return paths


def _series(rows: Sequence[JsonObject], plot: Plot) -> Series:
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


def _marks(rows: Sequence[JsonObject]) -> Marks:
    gates = [(row["step"], row["ptr/gate"]) for row in rows if row.get("ptr/gate") is not None]
    opens = next((step for step, gate in gates if gate > 0), None)
    evaluated = [row["step"] for row in rows if any(name.startswith("eval/") for name in row)]
    return Marks(evaluated, None if not gates or opens == gates[0][0] else opens)


def _draw(panels: Sequence[tuple[Plot, Series]], marks: Marks, path: Path, form: str) -> None:
    # The object interface: no display, and no figure kept by pyplot.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    num_rows = -(-len(panels) // columns)
    size = (8, 4.5) if len(panels) == 1 else (5 * columns, 3.1 * num_rows)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    grid = figure.subplots(num_rows, columns, squeeze=False).flat
    for axes, (plot, series) in zip(grid, panels, strict=False):
        _draw_lines(axes, plot, series, marks)
    for axes in list(grid)[len(panels) :]:
        axes.set_axis_off()
    metadata = {"CreationDate": None} if form == "pdf" else {"Date": None} if form == "svg" else None
    with rc_context({"svg.hashsalt": "rlcore"}):  # the same metrics give the same file
        figure.savefig(path, format=form, metadata=metadata)


def _draw_lines(axes: Axes, plot: Plot, series: Series, marks: Marks) -> None:
    ends: list[tuple[float, str, str]] = []
    for index, (name, (steps, values)) in enumerate(series.items()):
        line: dict[str, Any] = {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
        }
        drawn = values
        if name == "ptr/gate":
            axes.step(steps, values, where="post", linewidth=1.8, **line)
        elif len(values) > SMOOTHING:
            drawn = _running_mean(values, max(len(values) // SMOOTHING, 2))
            axes.plot(steps, values, linewidth=0.7, color=line["color"], alpha=0.25)
            axes.plot(steps, drawn, linewidth=1.8, **line)
        else:
            axes.plot(steps, values, marker="o", markersize=3, linewidth=1.5, **line)
        ends.append((float(drawn[-1]), name, line["color"]))
    if plot.log_scale:
        axes.set_yscale("log")
    axes.set_title(plot.title, loc="left", fontsize=10, pad=12)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _draw_marks(axes, marks)
    if len(ends) > 1:  # one alone is what the title says
        _label(axes, ends)


def _draw_marks(axes: Axes, marks: Marks) -> None:
    """Triangles on the axis are evaluations, the dotted line is where the gate opens."""
    if marks.evaluated:
        height = np.full(len(marks.evaluated), 0.015)
        at_axis: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.plot(marks.evaluated, height, "^", color="#777777", markersize=4, **at_axis)
    if marks.gate_opens is not None:
        axes.axvline(marks.gate_opens, color="#777777", linestyle=":", linewidth=1)
        at = (marks.gate_opens, 1.0)
        axes.annotate(
            "gate", at, xycoords=("data", "axes fraction"), fontsize=7, color="#777777", ha="center"
        )


def _label(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Writes each line's name at its right end, moved apart where ends are close; of many, the first."""
    to_share = axes.transData + axes.transAxes.inverted()
    right = axes.get_xlim()[1]
    places = sorted(
        (float(to_share.transform((right, value))[1]), name, colour) for value, name, colour in ends
    )
    names = [name for _, name, _ in places]
    heads = {name.partition("/")[0] for name in names}
    common = heads.pop() if len(heads) == 1 else ""
    reached = -1.0
    for place, name, colour in places[:_MAX_LABELS]:
        reached = max(place, reached + _LABEL_GAP)
        text = name.removeprefix(f"{common}/").replace("_", " ")
        at = (1.01, reached)
        axes.annotate(text, at, xycoords="axes fraction", fontsize=7.5, color=colour, va="center")


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Returns the mean of the last `window` values at each place, of fewer at the start: [N] to [N]."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
