"""Reads the rows of a file or of a data set's folder: JSON lines, a JSON list, CSV or Parquet.

A line that cannot be read is a row with a mistake: whoever reads on decides what becomes of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlcore.errors import DataError
from rlcore.inputs.hub import SPLIT, metadata_in, metadata_row, parquet_rows, shards_in, split_of
from rlcore.inputs.tables import csv_rows
from rlcore.records.files import open_text

_PARQUET_ROWS = 64
"""Rows in memory at a time: they may hold their recordings."""
_LISTS = (".jsonl", ".json", ".csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row is one line of a user's table, as it stands there."""

    where: str
    """Place of the row, for errors: the file and its line."""
    name: str
    """Name of the row by its place, where no column names it."""
    root: Path
    """Folder that paths in the row are relative to."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Value by column, without what is null or empty."""
    media_columns: Mapping[str, str] = field(default_factory=dict)
    """Column of the recordings (`audio`) and of the images (`image`), where a data set says which one."""
    mistake: str | None = None
    """Reason why the row cannot be read; None: it can."""


def read_source(path: str | Path, split: str) -> Iterator[Row]:
    """Yields the rows of a file, or those of one split of a data set's folder.

    Args:
        path: a file (.jsonl, .json, .csv, .parquet), or a folder of Parquet files, of an audiofolder's lists,
            or of files named by their splits.
        split: `train` or `eval`: rows of a folder's files that tell another split are left out. Where no
            file tells one, all rows are taken.

    Raises:
        DataError: there is no such file, it has another form as a whole, or no file is of the split.
    """
    path = Path(path).expanduser()
    if path.is_file():
        yield from _file_rows(path, path.parent)
        return
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder")
    files = _files_in(path)
    if not files:
        raise DataError(
            f"{path}: holds no rows: no Parquet files, no metadata.csv or .jsonl, and no train.jsonl, "
            "test.csv or the like. Name a file in it"
        )
    told = {file: split_of(file, path) for file in files}
    chosen = [file for file in files if told[file] == split] if any(told.values()) else files
    if not chosen:
        raise DataError(f"{path}: no file of it is of the split {split!r}: {[p.name for p in files][:10]}")
    for file in chosen:
        yield from _file_rows(file, path)


def has_split(path: str | Path, split: str) -> bool:
    """Tells whether a source is a folder of which a file tells this split."""
    path = Path(path).expanduser()
    return path.is_dir() and any(split_of(file, path) == split for file in _files_in(path))


def _files_in(folder: Path) -> list[Path]:
    """Returns the files of a data set's folder that hold its rows, of the first kind that there is."""
    lists = [p for p in sorted(folder.rglob("*")) if p.suffix in _LISTS and SPLIT.fullmatch(p.name)]
    return shards_in(folder) or metadata_in(folder) or lists


def _file_rows(path: Path, root: Path) -> Iterator[Row]:
    readers = {".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    stem = path.relative_to(root).with_suffix("").as_posix().removeprefix("data/").replace("/", "-")
    for number, found, columns in readers.get(path.suffix.lower(), _jsonl_rows)(path):
        where, name = f"{path}:{number}", f"{stem}-{number}"
        if isinstance(found, str):
            yield Row(where=where, name=name, root=root, mistake=found)
            continue
        row = metadata_row(path, found, root) if path.stem == "metadata" else found
        told = {str(key): value for key, value in row.items() if value is not None and value != ""}
        yield Row(where=where, name=name, root=root, values=told, media_columns=columns)


_Found = Iterator[tuple[int, dict[str, Any] | str, Mapping[str, str]]]
"""Number (from 1), values or the mistake, and `Row.media_columns`."""


def _jsonl_rows(path: Path) -> _Found:
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, f"not JSON: {error}", {}
                continue
            is_row = isinstance(row, dict)
            yield number, row if is_row else f"no JSON object: {line.strip()[:80]!r}", {}


def _json_rows(path: Path) -> _Found:
    with open_text(path) as file:
        text = file.read()
    if not text.lstrip().startswith("["):
        yield from _jsonl_rows(path)
        return
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    for number, row in enumerate(rows, 1):
        yield number, row if isinstance(row, dict) else f"no JSON object: {str(row)[:80]!r}", {}


def _csv_rows(path: Path) -> _Found:
    with open_text(path, newline="") as lines:
        for line, row in csv_rows(path, lines, lambda _: None):
            yield line, dict(row), {}


def _parquet_rows(path: Path) -> _Found:
    for number, (media_columns, row) in enumerate(parquet_rows(path, _PARQUET_ROWS), 1):
        yield number, row, media_columns
