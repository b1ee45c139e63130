"""The final table of a run, for people: for the terminal, and as Markdown.

A column is one entry of `COLUMNS`. Knows neither files nor terminals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from rlcore.records.markdown import table_row


@dataclass(frozen=True, slots=True)
class Column:
    """A column shows one metric of every row. It is left out of a table in which no row has it."""

    title: str
    key: str
    """The metric's name; a row without it shows a dash."""
    form: str
    """Format specification of the value."""

    def cell(self, row: Row) -> str:
        """Returns the row's value as text, a dash where it has none."""
        return format(row.metrics[self.key], self.form) if self.key in row.metrics else "-"


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
"""The table's columns in their order."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row is one model, or one reference that models are read against."""

    name: str
    metrics: Mapping[str, float]
    """Metrics by name, such as `emotion_task.task.EmotionTask.evaluate` returns."""
    reference: bool = False
    """References (majority, prosody classifier, full-label SFT) stand apart under the models."""
    note: str = ""
    """A remark in brackets after the name: `labels of 30 %`."""

    @property
    def title(self) -> str:
        """The name with its note."""
        return f"{self.name} ({self.note})" if self.note else self.name


def used_columns(rows: Sequence[Row]) -> list[Column]:
    """Returns the columns that at least one row fills."""
    return [c for c in COLUMNS if any(c.key in row.metrics for row in rows)]


def result_table(rows: Sequence[Row], title: str) -> Table:
    """Returns the table for a terminal, models first, then references."""
    columns = used_columns(rows)
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column.title, justify="right")
    models, references = _split(rows)
    for row in models:
        table.add_row(
            row.title,
            *(column.cell(row) for column in columns),
            end_section=bool(references) and row is models[-1],
        )
    for row in references:
        table.add_row(row.title, *(column.cell(row) for column in columns), style="dim")
    return table


def markdown_table(rows: Sequence[Row]) -> str:
    """Returns the table as Markdown, models first, then references."""
    columns = used_columns(rows)
    lines = [table_row(["", *(c.title for c in columns)]), "| --- |" + " ---: |" * len(columns)]
    models, references = _split(rows)
    lines += [table_row([row.title, *(c.cell(row) for c in columns)]) for row in [*models, *references]]
    return "\n".join(lines)


def _split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    return [row for row in rows if not row.reference], [row for row in rows if row.reference]
