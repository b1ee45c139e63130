"""Samples as columns, which a browser filters quickly, and what belongs to their prompts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlcore.records.files import JsonObject, finite
from rlcore.records.progress import Progress
from rlcore.report.estimates import scored_value
from rlcore.report.panels import Panels

RIGHT_ABOVE = 0.5
"""An answer is right where its outcome scored more than this."""
NOT_COLUMNS = ("step", "split", "prompt", "sample", "media", "reference", "text", "scores")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The samples of a page."""

    columns: JsonObject
    """Columns of the samples, and `prompts`, which they name by number."""
    recordings: list[JsonObject | None]
    """What the task draws of each prompt, in the order of `prompts`; empty without details."""


def table_of(rows: Sequence[JsonObject], num_all: int, outcome: str | None, panels: Panels | None) -> Table:
    """Returns rows of samples.jsonl as columns.

    Args:
        num_all: rows that the file has.
        outcome: the reward that says whether an answer is right.
        panels: the task's, whose details of each sample and prompt are added; None: no details.
    """
    numbers: dict[tuple[str, str], int] = {}
    firsts: list[JsonObject] = []
    for row in rows:
        key = str(row["split"]), str(row["prompt"])
        if key not in numbers:
            numbers[key] = len(firsts)
            firsts.append(row)
    columns: JsonObject = {
        "num_all": num_all,
        "prompts": [
            {"id": r["prompt"], "media": r.get("media") or {}, "reference": r.get("reference") or {}}
            for r in firsts
        ],
        "prompt": [numbers[str(row["split"]), str(row["prompt"])] for row in rows],
        "step": [row["step"] for row in rows],
        "split": [row["split"] for row in rows],
        "sample": [row.get("sample", 0) for row in rows],
        "text": [str(row.get("text", "")) for row in rows],
        "right": [_is_right(row, outcome) for row in rows],
        "scores": [_rounded(row.get("scores") or {}) for row in rows],
        "more": [_rounded({k: v for k, v in row.items() if k not in NOT_COLUMNS}) for row in rows],
    }
    recordings: list[JsonObject | None] = []
    if panels is not None:
        shown = Progress(rows, desc="samples", unit="sample", disable=None, leave=False, delay=1)
        columns["details"] = [finite(panels.of_sample(row)) for row in shown]
        prompts = Progress(firsts, desc="recordings", unit="file", disable=None, leave=False, delay=1)
        recordings = [finite(panels.of_prompt(row)) for row in prompts]  # type: ignore[misc]
    return Table(columns=finite(columns), recordings=recordings)  # type: ignore[arg-type]


def _is_right(row: JsonObject, outcome: str | None) -> bool | None:
    value = scored_value(row, outcome) if outcome is not None else None
    return None if value is None else value > RIGHT_ABOVE


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {str(name): _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
