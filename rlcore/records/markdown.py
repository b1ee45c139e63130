"""Rows of Markdown tables, in which text from outside is text and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

_ESCAPED = {"\\": "\\\\", "|": "\\|", "&": "&amp;", "<": "&lt;", ">": "&gt;", "](": "]\\("}


def table_row(cells: Iterable[object]) -> str:
    """Returns a row of a Markdown table. A cell's text can end neither its cell nor its row, and makes no
    tag, link or picture."""
    return "|" + "|".join(f" {text} " if text else " " for text in map(_cell, cells)) + "|"


def _cell(value: object) -> str:
    text = " ".join(str(value).split())
    for mark, escaped in _ESCAPED.items():
        text = text.replace(mark, escaped)
    return text
