"""Rows of what a part has found, each on disk at once: a part that dies keeps what it had measured."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

from rlcore.records.files import finite, write_json
from rlcore.records.markdown import table_row

MARKS = {True: "yes", False: "**no**", None: ""}


class Record:
    """Writes a part's rows to a JSON file."""

    def __init__(self, path: Path):
        self._path = path
        self.rows: list[dict[str, Any]] = []

    def measured(
        self,
        what: str,
        value: float | int | str,
        unit: str = "",
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        expected: str = "",
        passed: bool | None = None,
    ) -> None:
        """Adds a row. It passed or failed where there is a limit or `passed` says so, else it only tells."""
        if at_most is not None:
            expected, passed = f"at most {at_most:.4g}", float(value) <= at_most  # not for NaN
        if at_least is not None:
            expected, passed = f"at least {at_least:.4g}", float(value) >= at_least
        row = {"what": what, "value": value, "unit": unit, "expected": expected, "passed": passed}
        self.rows.append(row)
        print(row, flush=True)
        write_json(self._path, finite(self.rows))

    def broke(self, what: str, error: Exception) -> None:
        """Adds a row for a piece that raised; the part goes on, and its log has the traceback."""
        traceback.print_exception(error)
        last = f"{type(error).__name__}: {error}".strip().splitlines()[-1]
        self.measured(what, last[:300], passed=False)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows that a part has written; none where it wrote none."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return rows


def markdown(result: dict[str, Any]) -> str:
    """Renders the JSON of a check: a table of the parts, and one of what each has measured."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"{result['gpu'] or result['cpu']}, device {result['device']}; {versions}; {result['seconds']:.0f} s",
        "",
        table_row(("part", "", "seconds", "of what")),
        "| --- | --- | ---: | --- |",
    ]
    for part in result["parts"]:
        reason = f": {part['error']}" if part["status"] == "skipped" else ""
        cells = part["part"], part["status"] + reason, f"{part['seconds']:.0f}", part["about"]
        lines.append(table_row(cells))
    lines += [
        "",
        table_row(("part", "measured", "", "expected", "holds")),
        "| --- | --- | ---: | --- | --- |",
    ]
    for part in result["parts"]:
        for row in part["rows"]:
            value = f"{_number(row['value'])} {row['unit']}".strip()
            # Bold is ours; everything else comes from outside.
            cells = part["part"], row["what"], value, row["expected"], MARKS[row["passed"]]
            lines.append(table_row(cells))
    for part in result["parts"]:
        if part["status"] in ("error", "timeout"):
            lines += ["", f"`{part['part']}`: {part['status']}", "", "```", part["error"], "```"]
    return "\n".join(lines) + "\n"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
