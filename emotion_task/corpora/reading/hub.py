"""Data sets as the Hugging Face hub keeps them, and those of `emotion export`: their rows as a list's.

    root/data/train-00000-of-00002.parquet     Parquet below the root, with or without its recordings
    root/train/metadata.csv                    audiofolder: `file_name` and other columns (.jsonl, .parquet)
    root/train/happy/1.wav                     audiofolder: the folder's name is the emotion

A file or folder called train, test, validation and so on tells the split. `test` is our `eval`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_task.corpora.reading.exported import DERIVED, JSON_TEXTS
from emotion_task.corpora.reading.listing import CONTAINERS, READABLE, audio_files
from rlcore.errors import DataError
from rlcore.records.files import replaced

if TYPE_CHECKING:
    import pyarrow

_SPLITS = {"train": "train", "test": "eval", "eval": "eval"}
"""Our split by the hub's; others, such as validation, are in neither."""
_SPLIT = re.compile(r"(train|test|eval|validation|valid|val|dev|other)(?:[-_.].*)?")
_SUFFIXES = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}
"""Suffix by a recording's first bytes, where its name has none; .mp3 where it begins otherwise."""
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def shards_in(folder: Path) -> list[Path]:
    """Returns the Parquet files of a data set, sorted; none where the folder holds no data set."""
    found = sorted(folder.rglob("*.parquet"))
    return [path for path in found if path.name not in _METADATA and not path.name.startswith(".")]


def metadata_in(folder: Path) -> list[Path]:
    """Returns the lists of an audiofolder, sorted; none where it has none."""
    return sorted(path for name in _METADATA for path in folder.rglob(name))


def labelled_folders(folder: Path) -> list[Path]:
    """Returns the folders below `folder` that hold recordings, sorted."""
    suffixes = READABLE | CONTAINERS
    return sorted({path.parent for path in folder.rglob("*") if path.suffix.lower() in suffixes} - {folder})


def split_of(path: Path, root: Path) -> str | None:
    """Returns the split that a file's name, or that of a folder between `root` and it, tells."""
    between = path.relative_to(root).parts if path.is_relative_to(root) else (path.name,)
    told = [match[1] for part in reversed(between) if (match := _SPLIT.fullmatch(part))]
    return _SPLITS.get(told[0]) if told else None


def folder_rows(folder: Path, root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields place and row of each recording in a folder whose name is the label."""
    for stem, path in audio_files(folder.iterdir()).items():
        place = folder.relative_to(root) / stem
        yield (
            str(path.relative_to(root)),
            {
                "id": place.as_posix(),
                "audio": str(path),
                "emotion": None if _SPLIT.fullmatch(folder.name) else folder.name,
                "split": split_of(path, root),
            },
        )


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


def parquet_rows(path: Path, root: Path, audio_root: Path, batch_rows: int) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file with the names of their classes, and with paths to their recordings.

    Args:
        root: folder of the data set, or the Parquet file itself.
        audio_root: what the paths of recordings in a data set are relative to. Recordings that the rows hold
            are written there, below `audio/`, once.
        batch_rows: rows in memory at a time: they may hold their recordings.

    Raises:
        DataError: not a Parquet file, another file has the place of a recording that a row holds, or a row of
            an export is none.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error
    folder = path.parent if root.is_file() else root
    in_data_set = _SPLIT.fullmatch(path.name) is not None or (root.is_dir() and path.stem != "manifest")
    stem = path.relative_to(folder).with_suffix("").as_posix().removeprefix("data/").replace("/", "-")
    with table:
        classes, sound_column = _features(table.schema_arrow)
        number = 0
        for batch in table.iter_batches(batch_size=batch_rows):
            for row in batch.to_pylist():
                number += 1
                for column, names in classes.items():
                    row[column] = _class_name(row.get(column), names)
                if sound_column is not None:
                    row["audio"] = row.pop(sound_column)
                if in_data_set:
                    row.setdefault("split", split_of(path, folder))
                yield _as_listed(path, row, f"{stem}-{number:06d}", audio_root, in_data_set=in_data_set)


def _features(schema: pyarrow.Schema) -> tuple[dict[str, list[str]], str | None]:
    """Returns the names of the classes by column, and the one column of sound where it is not called `audio`,
    by the features that `datasets` writes beside the schema."""
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        kinds = {name: feature for name, feature in told.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}, None
    classes = {
        name: f["names"] for name, f in kinds.items() if f.get("_type") == "ClassLabel" and "names" in f
    }
    sounds = [name for name, feature in kinds.items() if feature.get("_type") == "Audio"]
    is_needed = len(sounds) == 1 and "audio" not in schema.names
    return classes, sounds[0] if is_needed else None


def _class_name(value: object, names: Collection[str]) -> object:
    """Returns the name of a class by its number; -1 stands for none."""
    if isinstance(value, int) and -1 <= value < len(names):
        return None if value == -1 else list(names)[value]
    return value


def _as_listed(
    path: Path, row: dict[str, Any], place: str, audio_root: Path, *, in_data_set: bool
) -> dict[str, Any]:
    """Returns a row with the fields of a list; `place` names it where it has no id."""
    row = {name: value for name, value in row.items() if name not in DERIVED}
    for column in JSON_TEXTS:
        try:
            if isinstance(row.get(column), str):
                row[column] = json.loads(row[column])
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: {row.get('id')}: {column} is not JSON: {error}") from error
    sound = row.get("audio")
    if isinstance(sound, dict):
        if sound.get("bytes") is None:
            row["audio"] = sound.get("path")
        else:
            row["audio"] = _unpacked(row, sound, place, audio_root)
            row.setdefault("id", place)
    if isinstance(row.get("audio"), str) and Path(row["audio"]).name and in_data_set:
        row.setdefault("id", Path(row["audio"]).with_suffix("").as_posix())
        row["audio"] = str(audio_root / row["audio"])
    return row


def _unpacked(row: dict[str, Any], sound: dict[str, Any], place: str, folder: Path) -> str:
    """Writes the recording that a row holds, and returns its path: the row's where it has an id, else by its
    place, since the hub's paths are not unique."""
    content, name = sound["bytes"], sound.get("path")
    if row.get("id") is None or not name:
        name = place + (Path(name or "").suffix or _SUFFIXES.get(content[:4], ".mp3"))
    target = folder / "audio" / str(row.get("dataset") or "").replace("/", "_") / name
    if not Path(target).resolve().is_relative_to(folder.resolve()):
        return str(target)  # which the list's reader refuses
    if not target.exists():
        with replaced(target) as partial:
            partial.write_bytes(content)
    elif target.read_bytes() != content:
        raise DataError(
            f"{target}: is another recording than that of {row.get('id') or place}; set audio_root to an "
            "empty folder, which the recordings in the data set are written to"
        )
    return str(target)
