"""The end of a run, for people: a table in the terminal, the same in report.md, and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from emotion_task.evaluation.metrics import NO_ANSWER


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table."""

    title: str
    key: str
    """Of a row's metrics; a row without it shows a dash."""
    form: str
    """Format specification of the value."""


COLUMNS: tuple[Column, ...] = (
    Column("accuracy", "accuracy", ".3f"),
    Column("UA", "unweighted_accuracy", ".3f"),
    Column("macro F1", "macro_f1", ".3f"),
    Column("format", "format_rate", ".3f"),
    Column("prosody", "prosody_accuracy", ".3f"),
    Column("pitch", "pitch_accuracy", ".3f"),
    Column("energy", "energy_accuracy", ".3f"),
    Column("rate", "speed_accuracy", ".3f"),
    Column("intonation", "intonation_accuracy", ".3f"),
    Column("claims right", "faithfulness/precision", ".3f"),
    Column("contradicted", "faithfulness/contradictions", ".3f"),
    Column("reasoning", "reward/reasoning", ".3f"),
    Column("tokens", "tokens", ".1f"),
    Column("ms/answer", "latency_ms", ".0f"),
)

_WIDEST = 400
"""Characters that a table may ask for."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model, or one reference that models are read against."""

    name: str
    metrics: Mapping[str, float]
    reference: bool = False
    """References (majority, prosody classifier, full-label SFT) stand apart under the models."""
    note: str = ""
    """Set in brackets after the name: `labels of 30 %`."""

    @property
    def title(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name


def format_cells(row: Row, columns: Sequence[Column] = COLUMNS) -> list[str]:
    """The row's values as text, a dash where it has none."""
    return [format(row.metrics[c.key], c.form) if c.key in row.metrics else "-" for c in columns]


def used_columns(rows: Sequence[Row]) -> list[Column]:
    """The columns that at least one row fills."""
    return [c for c in COLUMNS if any(c.key in row.metrics for row in rows)]


def result_table(rows: Sequence[Row], title: str) -> Table:
    """The final table, models first, then references."""
    columns = used_columns(rows)
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column.title, justify="right")
    models, references = _split(rows)
    for row in models:
        table.add_row(
            row.title, *format_cells(row, columns), end_section=bool(references) and row is models[-1]
        )
    for row in references:
        table.add_row(row.title, *format_cells(row, columns), style="dim")
    return table


def print_results(rows: Sequence[Row], title: str, console: Console | None = None) -> None:
    """Prints the final table. Ten columns need room, so a narrow terminal is not folded but run over."""
    console = console or Console()
    table = result_table(rows, title)
    needed = Measurement.get(console, console.options.update(width=_WIDEST), table).maximum
    console.width = max(console.width, needed)
    console.print(table, crop=False)


def markdown_table(rows: Sequence[Row]) -> str:
    """The final table as Markdown."""
    columns = used_columns(rows)
    lines = ["| | " + " | ".join(c.title for c in columns) + " |", "| --- |" + " ---: |" * len(columns)]
    models, references = _split(rows)
    lines += [
        f"| {row.title} | " + " | ".join(format_cells(row, columns)) + " |" for row in [*models, *references]
    ]
    return "\n".join(lines)


def write_report(
    path: str | Path,
    rows: Sequence[Row],
    title: str,
    confusions: Mapping[str, np.ndarray] | None = None,
    labels: Sequence[str] = (),
    sections: Sequence[str] = (),
) -> None:
    """Writes report.md, and beside it `confusion_<name>.png` for each entry of `confusions`.

    Args:
        confusions: name to counts [L, L + 1], as of `emotion_task.evaluation.metrics.confusion`.
        labels: the L rows' labels.
        sections: further Markdown, under the table.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [f"# {title}", markdown_table(rows), *sections]
    for name, counts in (confusions or {}).items():
        image = path.parent / f"confusion_{name}.png"
        plot_confusion(counts, labels, image, title=f"{title}: {name}")
        parts += [f"## Confusion: {name}", f"![Confusion of {name}]({image.name})"]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def plot_confusion(counts: np.ndarray, labels: Sequence[str], path: str | Path, title: str) -> None:
    """Draws counts [L, L + 1] as shares of each true label; the last column holds unreadable answers, and
    is left out where there are none."""
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
    """Draws a row a variant: unweighted accuracy with its interval, share of right claims, and the reward
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


def _split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    return [row for row in rows if not row.reference], [row for row in rows if row.reference]
