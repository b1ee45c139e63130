"""Data sets as `emotion export` writes them: how their shards are named, and their rows as a list's.

FOLDER/data/train-00000-of-00002.parquet ...
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rlcore.errors import DataError
from rlcore.records.files import replaced

SPLITS = {"train": "train", "eval": "test"}
"""Exported split by our split. Utterances of any other split, such as a corpus' development part, are
`other`."""
DERIVED = ("age_level",)
"""Exported columns that follow from others."""
JSON_TEXTS = ("measured", "extra")
"""Exported columns of objects as JSON."""
_SHARD = re.compile(r"(train|test|other)-\d{5}-of-\d{5}\.parquet")


def is_shard(path: Path) -> bool:
    """Tells whether a file has the name of a shard."""
    return _SHARD.fullmatch(path.name) is not None


def shards_in(folder: Path) -> list[Path]:
    """Returns the shards of a data set, sorted; none where the folder holds no data set."""
    return sorted(path for path in (folder / "data").glob("*.parquet") if is_shard(path))


def as_listed(shard: Path, row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Returns a row of a Parquet file with the fields of a list.

    Args:
        folder: what the paths of recordings are relative to. Recordings that the rows hold are written there,
            below `audio/`, once.

    Raises:
        DataError: another file has the place of a recording that the row holds, or the row is not of an
            export.
    """
    row = {name: value for name, value in row.items() if name not in DERIVED}
    for column in JSON_TEXTS:
        try:
            if isinstance(row.get(column), str):
                row[column] = json.loads(row[column])
        except (ValueError, RecursionError) as error:
            raise DataError(f"{shard}: {row.get('id')}: {column} is not JSON: {error}") from error
    sound = row["audio"]
    if isinstance(sound, dict):
        row["audio"] = sound["path"] if sound["bytes"] is None else _unpacked(row, sound, folder)
    if isinstance(row["audio"], str) and (name := _SHARD.fullmatch(shard.name)):
        row["audio"] = str(folder / row["audio"])
        ours = {exported: split for split, exported in SPLITS.items()}
        row.setdefault("split", ours.get(name[1]))
    return row


def _unpacked(row: dict[str, Any], sound: dict[str, Any], folder: Path) -> str | None:
    """Writes the recording that a row holds, and returns its path; None where it has no name."""
    if not sound["path"]:
        return None
    target = folder / "audio" / str(row.get("dataset")).replace("/", "_") / sound["path"]
    if not Path(target).resolve().is_relative_to(folder.resolve()):
        return str(target)  # which the list's reader refuses
    if not target.exists():
        with replaced(target) as partial:
            partial.write_bytes(sound["bytes"])
    elif target.read_bytes() != sound["bytes"]:
        raise DataError(
            f"{target}: is another recording than that of {row.get('id')}; set audio_root to an empty "
            "folder, which the recordings in the data set are written to"
        )
    return str(target)
