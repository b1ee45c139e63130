"""Measures how well grades agree with known ones: figures of arrays, and the picture of the reliability
curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata, spearmanr

from emotion_task.reward_model.grades import DIMENSIONS, MAX_GRADE

OVERALL = "overall"
"""Name of the overall grade: five times the reward, which puts it on the scale of the grades."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Holds one bin of a reliability curve."""

    predicted: float
    """Mean expected grade of the bin's responses."""
    known: float
    """Mean known grade of the same responses."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Holds how well the predicted grades of one dimension agree with the known ones."""

    mae: float
    """Mean absolute error, in grades."""
    rank_correlation: float
    """Spearman's rank correlation; 0 where the predictions or the known grades are all the same."""
    alpha: float
    """Krippendorff's alpha of the known grades and the predictions rounded to grades, ordinal. For the
    overall grade, alpha is on the interval scale, with both rounded to tenths. 1 is agreement, 0 chance."""
    calibration_error: float
    """Mean distance of the curve from the diagonal, weighted by count, in grades."""
    curve: tuple[Reliability, ...]
    """The reliability curve, bin by bin."""


def agreements(predicted: np.ndarray, known: np.ndarray) -> dict[str, Agreement]:
    """Returns the agreement of each dimension and of the overall grade (`OVERALL`), by name.

    Args:
        predicted: expected grades, float [N, D] in the order of `DIMENSIONS`.
        known: known grades, integers [N, D], 1 to 5.
    """
    shapes = predicted.shape, known.shape
    assert shapes[0] == shapes[1] and known.shape[1] == len(DIMENSIONS), shapes
    weights = np.array([dimension.weight for dimension in DIMENSIONS])
    found = {
        dimension.name: agreement(predicted[:, j], known[:, j]) for j, dimension in enumerate(DIMENSIONS)
    }
    # Rounded, so that rewards that are equal on paper tie.
    overall = np.round(predicted @ weights, 9), np.round(known @ weights, 9)
    return found | {OVERALL: agreement(*overall, graded=False)}


def agreement(predicted: np.ndarray, known: np.ndarray, *, graded: bool = True) -> Agreement:
    """Returns the agreement of one dimension's predicted with its known grades, float [N] each.

    Args:
        graded: whether the known ones are whole grades.
    """
    varied = np.ptp(predicted) > 0 and np.ptp(known) > 0
    ratings = np.round(np.stack([predicted, known]), 0 if graded else 1)
    curve = reliability_curve(predicted, known)
    distances = sum(each.count * abs(each.predicted - each.known) for each in curve)
    return Agreement(
        mae=float(np.abs(predicted - known).mean()),
        rank_correlation=float(spearmanr(predicted, known)[0]) if varied else 0.0,
        alpha=krippendorff_alpha(*ratings, ordinal=graded),
        calibration_error=float(distances / len(known)),
        curve=curve,
    )


def krippendorff_alpha(first: np.ndarray, second: np.ndarray, *, ordinal: bool) -> float:
    """Returns Krippendorff's alpha of two raters, float [N] each: 1 - observed / expected disagreement
    (Krippendorff 2011, "Computing Krippendorff's alpha-reliability").

    The distance of two values is the square of their difference. For `ordinal` values, the distance is the
    square of the difference of their mean ranks among all values. Alpha is 0 where all values are alike:
    nothing can be told from them."""
    values = np.concatenate([first, second])
    if ordinal:
        values = rankdata(values)
    expected = 2 * values.var(ddof=1)
    observed = np.mean((values[: len(first)] - values[len(first) :]) ** 2)
    return float(1 - observed / expected) if expected > 0 else 0.0


def reliability_curve(
    predicted: np.ndarray, known: np.ndarray, num_bins: int = 10
) -> tuple[Reliability, ...]:
    """Returns means of predicted and known grades, float [N] each, in bins of equal width of the predicted
    grade.

    The bins span 1 to 5; empty bins are left out."""
    places = np.clip(((predicted - 1) / (MAX_GRADE - 1) * num_bins).astype(int), 0, num_bins - 1)
    return tuple(
        Reliability(
            predicted=float(predicted[places == place].mean()),
            known=float(known[places == place].mean()),
            count=int((places == place).sum()),
        )
        for place in range(num_bins)
        if (places == place).any()
    )


def plot_reliability(by_model: Mapping[str, Mapping[str, Agreement]], path: str | Path) -> None:
    """Draws a panel per dimension with a curve per model; the area of a point grows with its bin's count."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(next(iter(by_model.values())))
    figure = Figure(figsize=(4 * 3, 4 * -(-len(names) // 3)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(-(-len(names) // 3), 3, place)
        axes.plot([1, MAX_GRADE], [1, MAX_GRADE], color="grey", linewidth=0.8, linestyle="--")
        for model, found in by_model.items():
            _draw_curve(axes, found[name].curve, f"{model}: rank {found[name].rank_correlation:.2f}")
        axes.set(title=name, xlabel="expected grade", ylabel="known grade (mean)")
        axes.set(xlim=(0.9, MAX_GRADE + 0.1), ylim=(0.9, MAX_GRADE + 0.1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper left")
    figure.savefig(path)


def _draw_curve(axes: object, curve: Sequence[Reliability], label: str) -> None:
    total = sum(each.count for each in curve)
    predicted, known = [each.predicted for each in curve], [each.known for each in curve]
    (line,) = axes.plot(predicted, known, linewidth=1.5, label=label)  # type: ignore[attr-defined]
    sizes = [10 + 300 * each.count / total for each in curve]
    axes.scatter(predicted, known, s=sizes, color=line.get_color(), alpha=0.5)  # type: ignore[attr-defined]
