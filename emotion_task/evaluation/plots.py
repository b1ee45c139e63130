"""The pictures of a run, for people: confusion matrices, and the ablations' bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion_task.evaluation.metrics import NO_ANSWER


def plot_confusion(counts: np.ndarray, labels: Sequence[str], path: str | Path, title: str) -> None:
    """Draws counts [L, L + 1] as shares of each true label.

    The last column holds unreadable answers, and is left out where there are none.
    """
    from matplotlib.figure import Figure

    counts = np.asarray(counts)
    answers = [*labels, NO_ANSWER]
    if not counts[:, -1].any():
        counts, answers = counts[:, :-1], answers[:-1]
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    figure = Figure(figsize=(0.7 * len(answers) + 2, 0.6 * len(labels) + 2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        if counts[row, column]:
            shade = "white" if share > 0.5 else "black"
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=8, color=shade)
    axes.set_xticks(range(len(answers)), answers, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="answer", ylabel="emotion", title=title)
    figure.savefig(path, dpi=120)


def plot_ablation(rows: Mapping[str, Mapping[str, Any]], path: str | Path) -> None:
    """Draws the variants' unweighted accuracy with its interval, share of right claims, and the reward
    model's grade, beside each other.

    Args:
        rows: name to `unweighted_accuracy` (`value`, `low`, `high`), `claims_right` and `reasoning` (1 to 5);
            either of the two may be None.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.45 * len(rows) + 1.4), layout="constrained")
    accuracy, claims, grades = figure.subplots(1, 3, sharey=True)
    places, names = np.arange(len(rows)), list(rows)
    of_accuracy = [row["unweighted_accuracy"] for row in rows.values()]
    values = np.array([each["value"] for each in of_accuracy])
    errors = [values - [each["low"] for each in of_accuracy], [each["high"] for each in of_accuracy] - values]
    accuracy.barh(places, values, xerr=np.maximum(errors, 0), capsize=3)
    for axes, key, title, limits in (
        (claims, "claims_right", "claims right", (0, 1)),
        (grades, "reasoning", "reasoning grade", (1, 5)),
    ):
        shown = [np.nan if row[key] is None else row[key] for row in rows.values()]
        axes.plot(shown, places, "o")
        axes.set(title=title, xlim=limits)
        axes.grid(axis="x", alpha=0.3)
    accuracy.set(title="unweighted accuracy", xlim=(0, 1))
    accuracy.set_yticks(places, names)
    accuracy.invert_yaxis()
    figure.savefig(path, dpi=120)
