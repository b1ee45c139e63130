"""Data sets as the Hugging Face hub keeps them, in a folder.

    root/data/train-00000-of-00002.parquet     Parquet below the root, with or without its recordings
    root/train/metadata.csv                    audiofolder: `file_name` and other columns (.jsonl, .parquet)

A file or folder called train, test, validation and so on tells the split. `test` is our `eval`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlcore.errors import DataError

if TYPE_CHECKING:
    import pyarrow

_SPLITS = {"train": "train", "test": "eval", "eval": "eval"}
"""Our split by the hub's; others, such as validation, are in neither."""
SPLIT = re.compile(r"(train|test|eval|validation|valid|val|dev|other)(?:[-_.].*)?")
"""Names of files and folders that tell a split, the first group."""
SUFFIXES = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}
"""Suffix by a recording's first bytes, where its name has none; .mp3 where it begins otherwise."""
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def shards_in(folder: Path) -> list[Path]:
    """Returns the Parquet files of a data set, sorted; none where the folder holds no data set."""
    found = sorted(folder.rglob("*.parquet"))
    return [path for path in found if path.name not in _METADATA and not path.name.startswith(".")]


def metadata_in(folder: Path) -> list[Path]:
    """Returns the lists of an audiofolder, sorted; none where it has none."""
    return sorted(path for name in _METADATA for path in folder.rglob(name))


def split_of(path: Path, root: Path) -> str | None:
    """Returns the split that a file's name, or that of a folder between `root` and it, tells."""
    between = path.relative_to(root).parts if path.is_relative_to(root) else (path.name,)
    told = [match[1] for part in reversed(between) if (match := SPLIT.fullmatch(part))]
    return _SPLITS.get(told[0]) if told else None


def metadata_row(path: Path, row: dict[str, Any], root: Path) -> dict[str, Any]:
    """Returns a row of an audiofolder's list, with the recording's path relative to that list."""
    name = row.get("file_name")
    if not isinstance(name, str) or not Path(name).name or "audio" in row:
        return row
    own = {key: value for key, value in row.items() if key != "file_name"}
    place = path.parent.relative_to(root) / name
    return (
        {"id": place.with_suffix("").as_posix(), "split": split_of(path.parent / name, root)}
        | own
        | {"audio": str(path.parent / name)}
    )


def parquet_rows(path: Path, batch_rows: int) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Yields the rows of a Parquet file with the names of their classes, each with the name of the one column
    of sound (`audio`) and of images (`image`), where there is one and not several.

    Args:
        batch_rows: rows in memory at a time: they may hold their recordings.

    Raises:
        DataError: not a Parquet file.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error
    with table:
        classes, media_columns = _features(table.schema_arrow)
        for batch in table.iter_batches(batch_size=batch_rows):
            for row in batch.to_pylist():
                for column, names in classes.items():
                    row[column] = _class_name(row.get(column), names)
                yield media_columns, row


def _features(schema: pyarrow.Schema) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Returns the names of the classes by column, and the one column of sound and of images, from the
    features that `datasets` writes beside the schema."""
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        kinds = {name: feature for name, feature in told.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}, {}
    classes = {
        name: f["names"] for name, f in kinds.items() if f.get("_type") == "ClassLabel" and "names" in f
    }
    media = {
        kind: [name for name, feature in kinds.items() if feature.get("_type") == kind.capitalize()]
        for kind in ("audio", "image")
    }
    return classes, {kind: names[0] for kind, names in media.items() if len(names) == 1}


def _class_name(value: object, names: Collection[str]) -> object:
    """Returns the name of a class by its number; -1 stands for none."""
    if isinstance(value, int) and -1 <= value < len(names):
        return None if value == -1 else list(names)[value]
    return value
