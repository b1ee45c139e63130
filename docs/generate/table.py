"""Tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a table, and an empty one after it."""
    return [*(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows]), ""]
