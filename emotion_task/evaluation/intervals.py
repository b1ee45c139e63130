"""Estimates with their intervals for people: a Markdown table and bars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from emotion_task.evaluation.bootstrap import Estimate
from rlcore.records.markdown import table_row

Estimates = Mapping[str, Estimate]


def estimates_table(
    title: str,
    models: Mapping[str, Estimates],
    gain: Estimates | None = None,
    floor: Mapping[str, Mapping[str, float]] | None = None,
    sign: str = "",
) -> list[str]:
    """Returns the lines of a Markdown table in per cent: a row per score, a column per model.

    Args:
        sign: `+` where the models' own figures are differences, as those of `gain` always are.
    """
    header = [title, "n", *(["chance", "majority"] if floor else []), *models, *(["gain"] if gain else [])]
    lines = [table_row(header), "| --- |" + " ---: |" * (len(header) - 1)]
    first = next(iter(models.values()))
    for name, estimated in first.items():
        cells = [name, str(estimated.num)]
        if floor:
            known = floor.get(name) or _mean_floor(floor)
            cells += [f"{100 * known[kind]:.1f}" if kind in known else "-" for kind in ("chance", "majority")]
        cells += [_cell(model[name], sign) for model in models.values()]
        cells += [_cell(gain[name], sign="+")] if gain else []
        lines.append(table_row(cells))
    return lines


def _mean_floor(floor: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {"chance": float(np.mean([of_one["chance"] for of_one in floor.values()]))}


def _cell(estimated: Estimate, sign: str = "") -> str:
    value, low, high = (100 * each for each in (estimated.value, estimated.low, estimated.high))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def plot_estimates(models: Mapping[str, Estimates], path: str | Path, title: str) -> None:
    """Draws bars with their intervals, a colour per model."""
    from matplotlib.figure import Figure

    names = list(next(iter(models.values())))
    figure = Figure(figsize=(1.1 * len(names) + 2, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(models)
    for index, (model, estimates) in enumerate(models.items()):
        values = np.array([estimates[name].value for name in names])
        errors = [
            values - [estimates[name].low for name in names],
            [estimates[name].high for name in names] - values,
        ]
        places = np.arange(len(names)) + (index - (len(models) - 1) / 2) * width
        axes.bar(places, values, width, yerr=np.maximum(errors, 0), capsize=3, label=model)
    axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 7 else 0)
    axes.set(ylim=(0, 1), ylabel="accuracy", title=title)
    axes.legend()
    figure.savefig(path, dpi=120)
