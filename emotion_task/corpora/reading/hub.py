"""Data sets as the Hugging Face hub keeps them, and those of `emotion export`: their rows as a list's.

    root/data/train-00000-of-00002.parquet     Parquet below the root, with or without its recordings
    root/train/metadata.csv                    audiofolder: `file_name` and other columns (.jsonl, .parquet)
    root/train/happy/1.wav                     audiofolder: the folder's name is the emotion

A file or folder called train, test, validation and so on tells the split. `test` is our `eval`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emotion_task.corpora.reading.exported import DERIVED, JSON_TEXTS
from emotion_task.corpora.reading.listing import CONTAINERS, READABLE, audio_files
from rlcore.errors import DataError
from rlcore.inputs import hub
from rlcore.inputs.hub import SPLIT, SUFFIXES, split_of
from rlcore.records.files import replaced


def labelled_folders(folder: Path) -> list[Path]:
    """Returns the folders below `folder` that hold recordings, sorted."""
    suffixes = READABLE | CONTAINERS
    return sorted({path.parent for path in folder.rglob("*") if path.suffix.lower() in suffixes} - {folder})


def folder_rows(folder: Path, root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields place and row of each recording in a folder whose name is the label."""
    for stem, path in audio_files(folder.iterdir()).items():
        place = folder.relative_to(root) / stem
        yield (
            str(path.relative_to(root)),
            {
                "id": place.as_posix(),
                "audio": str(path),
                "emotion": None if SPLIT.fullmatch(folder.name) else folder.name,
                "split": split_of(path, root),
            },
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
    folder = path.parent if root.is_file() else root
    in_data_set = SPLIT.fullmatch(path.name) is not None or (root.is_dir() and path.stem != "manifest")
    stem = path.relative_to(folder).with_suffix("").as_posix().removeprefix("data/").replace("/", "-")
    for number, (columns, row) in enumerate(hub.parquet_rows(path, batch_rows), 1):
        if "audio" in columns and "audio" not in row:
            row["audio"] = row.pop(columns["audio"])
        if in_data_set:
            row.setdefault("split", split_of(path, folder))
        yield _as_listed(path, row, f"{stem}-{number:06d}", audio_root, in_data_set=in_data_set)


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
        name = place + (Path(name or "").suffix or SUFFIXES.get(content[:4], ".mp3"))
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
