"""Any folder of audio with a list beside it: JSONL (one Utterance per line), CSV with a header, or Parquet;
or a data set of the Hugging Face hub or of `emotion export` (`emotion_task.corpora.reading.hub`).

`audio` is required (relative to the list's folder, or absolute). The other fields are those of
`emotion_task.records.Utterance`; columns that are none are kept as `extra`. An empty cell, and NaN, is null.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from os.path import abspath, expanduser
from pathlib import Path
from typing import Any

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.fields import FIELDS, Translation
from emotion_task.corpora.reading.hub import (
    folder_rows,
    labelled_folders,
    parquet_rows,
)
from emotion_task.labels import ALL_LABELS
from emotion_task.parsing import normalise_label
from emotion_task.records import OLDEST_YEARS, Utterance, wrong_type
from rlcore.errors import DataError
from rlcore.inputs.hub import metadata_in, metadata_row, shards_in
from rlcore.inputs.tables import csv_rows
from rlcore.records.files import is_nan, numbered_rows, open_text

log = logging.getLogger(__name__)

_COLUMNS = (
    *("id", "audio", "channel", "text", "emotion", "speaker", "dataset", "gender", "age_years", "language"),
    *("split", "video"),
)
_NAMES = ("manifest.jsonl", "manifest.csv", "manifest.parquet")
_ALLOWED = {
    "gender": ("male", "female"),
    "split": ("train", "eval"),
}
_PARQUET_ROWS = 64
_TEXTS = ("id", "dataset", "speaker", "text", "language")
"""Columns of text, in which JSON and Parquet may have numbers."""
_SHOWN = 10
"""Mistakes that an error lists; it counts all."""

Fields = dict[str, Any]
"""Fields of an utterance as a list holds them, not yet checked."""
Row = tuple[str, Fields]
"""A row's place, for errors, and its fields."""


def load_manifest(
    root: str | Path,
    *,
    file: str | None = None,
    dataset: str | None = None,
    audio_root: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    labels: Mapping[str, str | None] | None = None,
    emotions: Sequence[str] = ALL_LABELS,
) -> list[Utterance]:
    """Lists the utterances of a manifest.

    Args:
        root: the manifest itself, a folder that holds it, or the folder of a data set.
        file: name of the manifest in that folder; by default manifest.jsonl, .csv or .parquet.
        dataset: name of the corpus, where the manifest does not tell (levels are calibrated by corpus).
        audio_root: folder that holds the recordings, by default the manifest's own. A path that leads out
            of it is a mistake. Paths in a data set are relative to it, and recordings in a data set are
            written to it.
        columns: column by field, where they differ.
        labels: our label by the list's, where they differ; null leaves such rows out, and the log says how
            many. Other forms of ours (Anger, happiness) need none.
        emotions: the labels that are allowed, in the place of ours.

    Raises:
        DataError: no manifest, no proper CSV, or mistakes in it: no `audio`, a misspelt column, a duplicate
            id, an unknown label, a path outside `audio_root`. Says what and where for the first ten, and how
            many there are.
        ConfigError: `columns` names no field, or no column of the list.
    """
    translation = Translation(columns or {}, labels or {}, emotions)
    root = Path(root).expanduser()
    paths = find_lists(root, file, (*emotions, *translation.labels))
    path = paths[0] if len(paths) == 1 else root
    own = root if root.is_dir() else root.parent
    allowed = Path(abspath(Path(audio_root).expanduser() if audio_root else own))
    mistakes: list[str] = []
    utterances: dict[str, Utterance] = {}
    lines: dict[str, str] = {}
    for where, row in chain.from_iterable(_rows(each, root, allowed, translation) for each in paths):
        found = [*_mistakes(row, own, allowed, emotions), *translation.misspelt(row)]
        id = "" if found else str(row.get("id", Path(row["audio"]).with_suffix("").as_posix()))
        if not found and id in utterances:
            found = [f"the id {id!r} stands at {lines[id]} already"]
        mistakes += [f"{where}: {mistake}" for mistake in found]
        if not found:
            lines[id] = where
            utterances[id] = _utterance(id, own, row, dataset or "manifest")
    translation.check()
    for label, count in translation.left_out.items():
        log.info("%s: left out %d of %r", path, count, label)
    if mistakes:
        raise DataError(f"{path}: {len(mistakes)} mistakes" + "".join(f"\n  {m}" for m in _first(mistakes)))
    if not utterances:
        raise DataError(f"{path}: no utterance in it")
    return list(utterances.values())


def _utterance(id: str, own: Path, row: Fields, dataset: str) -> Utterance:
    """Returns the utterance of a row without mistakes."""
    values: Fields = {"dataset": dataset} | row
    # 7 and "7" are one speaker.
    values |= {name: str(values[name]) for name in _TEXTS if name in values}
    if "age_years" in row:
        values["age_years"] = float(row["age_years"])
    if "channel" in row:
        values["channel"] = int(float(row["channel"]))
    places = {name: str(_place(own, row, name)) for name in ("audio", "video") if row.get(name)}
    return Utterance(**(values | places | {"id": id}))


def _first(mistakes: list[str]) -> list[str]:
    rest = len(mistakes) - _SHOWN
    return mistakes[:_SHOWN] + ([f"... and {rest} more"] if rest > 0 else [])


def _mistakes(row: Fields, own: Path, allowed: Path, emotions: Sequence[str]) -> Iterator[str]:
    audio, video = _place(own, row, "audio"), _place(own, row, "video")
    if audio is None:
        yield "no audio path (`audio` is required)"
    elif "\0" in row["audio"]:
        yield f"audio {row['audio']!r} holds a NUL character"
    elif not Path(row["audio"]).name or Path(row["audio"]).name == "..":
        yield f"audio {row['audio']!r} names a folder, no recording"
    elif not audio.is_relative_to(allowed):
        yield f"audio {row['audio']!r} leads out of {allowed} (set audio_root to the folder that holds it)"
    if video is not None and ("\0" in row["video"] or not video.is_relative_to(allowed)):
        yield f"video {row['video']!r} leads out of {allowed} (set audio_root to the folder that holds it)"
    age = row.get("age_years")
    if age is not None and not (_number(age) and 0 < float(age) < OLDEST_YEARS):
        yield f"age_years {age!r} is no age (leave it out where unknown)"
    channel = row.get("channel")
    if channel is not None and not (_number(channel) and float(channel) in range(1, 1025)):
        yield f"channel {channel!r} is no number of a channel (1, 2, ...; leave it out for all)"
    for field in sorted(set(row) & (set(FIELDS) - set(_COLUMNS) | {*_TEXTS, "video"})):
        is_number = isinstance(row[field], int | float) and not isinstance(row[field], bool)
        mistake = None if is_number and field in _TEXTS else wrong_type(field, row[field])
        if mistake is not None:
            yield mistake
    for field, values in (("emotion", emotions), *_ALLOWED.items()):
        if row.get(field) is not None and row[field] not in values:
            hint = f"map it by labels={{{row[field]}: LABEL}}, or " if field == "emotion" else ""
            told = f"{field} {row[field]!r} is not one of {', '.join(values)}"
            yield f"{told} ({hint}leave it out where unknown)"


def _number(value: str | float) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _place(own: Path, row: Fields, name: str) -> Path | None:
    # Not resolved: a link inside the folder is its owner's own doing.
    return Path(abspath(own / expanduser(row[name]))) if isinstance(row.get(name), str) else None


def find_lists(root: Path, file: str | None, labels: Sequence[str] = ()) -> list[Path]:
    """Returns the list's file, or the shards, lists or folders of a data set.

    Args:
        labels: names of folders that are labels, beside other forms of ours.

    Raises:
        DataError: there is neither, or no such folder.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise DataError(f"{root}: no such file or folder")
    names = (file,) if file else _NAMES
    for name in names:
        if (root / name).is_file():
            return [root / name]
    if file is None:
        if shards := shards_in(root):
            return shards
        if lists := metadata_in(root):
            return lists
        folders = labelled_folders(root)
        if any(folder.name in labels or normalise_label(folder.name) for folder in folders):
            return folders
    raise DataError(
        f"{root}: no {' or '.join(names)} here. Expected is JSONL, CSV or Parquet with the fields "
        f"{', '.join(_COLUMNS)} (only audio is required), or a data set of the hub."
    )


def _rows(path: Path, root: Path, audio_root: Path, translation: Translation) -> Iterator[Row]:
    """Yields the rows as fields, without their empty cells."""
    for where, row in _read(path, root, audio_root):
        told = {name: value for name, value in row.items() if value not in (None, "") and not is_nan(value)}
        if (found := translation.read(told)) is not None:
            yield where, found


def _read(path: Path, root: Path, audio_root: Path) -> Iterator[Row]:
    if path.is_dir():
        yield from folder_rows(path, root)
        return
    readers = {".csv": _csv_rows, ".parquet": lambda path: _parquet_rows(path, root, audio_root)}
    for where, row in readers.get(path.suffix.lower(), _jsonl_rows)(path):
        yield where, metadata_row(path, row, root) if path.stem == "metadata" and root.is_dir() else row


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, row in numbered_rows(path, "an utterance"):
        yield f"{path.name}:{number}", row


def _csv_rows(path: Path) -> Iterator[Row]:
    with open_text(path, newline="") as lines:
        for line, row in csv_rows(path, lines, lambda columns: _check_columns(path, columns)):
            yield f"{path.name}:{line}", {column: cell.strip() for column, cell in row.items()}


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if not columns:
        raise DataError(f"{path}: columns []; `audio` is required, others are {', '.join(_COLUMNS[2:])}")


def _parquet_rows(path: Path, root: Path, audio_root: Path) -> Iterator[Row]:
    for number, row in enumerate(parquet_rows(path, root, audio_root, _PARQUET_ROWS), 1):
        yield f"{path.name}: row {number}", row


CORPUS = Corpus(load=load_manifest)
