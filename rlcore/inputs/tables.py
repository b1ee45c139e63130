"""Reads CSV strictly: whatever would move a cell into another column, or hide rows, is an error."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from rlcore.errors import DataError


def csv_rows(
    path: Path, lines: Iterable[str], check_columns: Callable[[Sequence[str]], None]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields each row's first line (from 1) and its cells by column. Empty lines are passed over.

    Args:
        path: the list's path, for errors.
        lines: the list's lines, opened with `newline=""`.
        check_columns: raises where the header's columns are not those of the list.

    Raises:
        DataError: an unclosed quotation, a NUL character, a field beyond `csv.field_size_limit()`, a column
            twice, or a row with more or fewer cells than columns; the message names file and line.
    """
    reader = csv.reader(lines, strict=True)
    columns: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{path}:{line}: not CSV: {error}. Is a quotation mark in that row never closed, or not "
                "doubled inside a quoted cell?"
            ) from error
        if cells is None:
            break
        if not cells:
            continue
        if any("\0" in cell for cell in cells):
            raise DataError(f"{path}:{line}: a NUL character, which no text has; save the list anew as UTF-8")
        if columns is None:
            columns = cells
            _check_once(path, line, columns)
            check_columns(columns)
        elif len(cells) != len(columns):
            amount = "more" if len(cells) > len(columns) else "fewer"
            raise DataError(f"{path}:{line}: {amount} cells than columns ({len(cells)}, not {len(columns)})")
        else:
            yield line, dict(zip(columns, cells, strict=True))
    if columns is None:
        check_columns(())


def _check_once(path: Path, line: int, columns: Sequence[str]) -> None:
    if doubled := sorted({column for column in columns if columns.count(column) > 1}):
        raise DataError(f"{path}:{line}: the columns {doubled} stand there twice; each is allowed once")
