"""Reads owners' transcripts strictly: whatever would change a letter is an error."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from pathlib import Path

from rlcore.errors import DataError


def owners_text(path: Path) -> str:
    """Reads a file of an English corpus as its owner ships it: UTF-8, or Windows' code page 1252, which some
    owners' tools wrote, line by line.

    Raises:
        DataError: a line is neither; names file and line.
    """
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines(keepends=True)
    return "".join(_decoded(path, number, line) for number, line in enumerate(lines, 1))


def _decoded(path: Path, number: int, line: bytes) -> str:
    for encoding in ("utf-8", "cp1252"):
        try:
            if b"\0" not in line:  # UTF-16 has one in every letter
                return line.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataError(
        f"{path}:{number}: neither UTF-8 nor Windows-1252 text: {line[:40]!r}; is the file damaged, or "
        "UTF-16? Save it as UTF-8"
    )


def require_columns(path: Path, required: set[str]) -> Callable[[Sequence[str]], None]:
    """Returns a check, for `csv_rows`, that these columns are there; it raises DataError otherwise."""

    def check(columns: Sequence[str]) -> None:
        if missing := sorted(required - set(columns)):
            raise DataError(f"{path}: the columns {missing} are missing; found are {list(columns)}")

    return check


def text_beside(path: Path) -> str | None:
    """Returns what a transcript of the owner's holds, in one line; None where there is no such file.

    Raises:
        DataError: as `owners_text`.
    """
    return " ".join(owners_text(path).split()) if path.is_file() else None
