"""The matrix as a table of Markdown, in its place on a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.chaos.cells import STATES, VICTIMS
from rlcore.records.files import write_text

BEGIN, END = "<!-- benchmarks.chaos: begin -->", "<!-- benchmarks.chaos: end -->"


def matrix(rows: Sequence[dict[str, Any]]) -> str:
    """Returns a row per victim and a column per state: seconds to recovery or to the error, at staleness 0
    and 1; `-` where there was no strike."""
    names = [f"{victim}{' stopped' if signal == 'stop' else ''}" for signal, victim in _struck(rows)]
    lines = [f"| | {' | '.join(STATES)} |", f"| --- |{' ---: |' * len(STATES)}"]
    for name, (signal, victim) in zip(names, _struck(rows), strict=True):
        of_victim = [row for row in rows if (row["signal"], row["victim"]) == (signal, victim)]
        cells = [_cell([row for row in of_victim if row["state"] == state]) for state in STATES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _struck(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    found = {(row["signal"], row["victim"]) for row in rows}
    return [(s, victim) for s in ("kill", "stop") for victim in VICTIMS if (s, victim) in found]


def _cell(rows: Sequence[dict[str, Any]]) -> str:
    of_staleness = {row["staleness"]: row for row in rows}
    return " / ".join(
        "-" if row is None else "**failed**" if row["ended"] == "failed" else f"{row['seconds']:.0f}"
        for row in (of_staleness.get(staleness) for staleness in (0, 1))
    )


def write_matrix(rows: Sequence[dict[str, Any]], page: Path) -> None:
    """Replaces what stands between the marks of a page."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{page}: has no place between {BEGIN} and {END}")
    write_text(page, f"{before}{BEGIN}\n{matrix(rows)}\n{END}{after}")
