"""Any folder of audio with a list beside it: JSONL (one Utterance a line) or CSV with a header.

CSV columns: `audio` (required; relative to the file's folder or absolute), then any of `id`, `text`,
`emotion`, `speaker`, `dataset`, `gender`, `split`. An empty cell is null.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

from emotion_task.labels import ALL_LABELS
from emotion_task.records import Utterance, read_manifest
from rlcore.errors import DataError

_COLUMNS = ("id", "audio", "text", "emotion", "speaker", "dataset", "gender", "split")
_GENDERS, _SPLITS = ("male", "female"), ("train", "eval")


def load_manifest(
    root: str | Path, *, file: str | None = None, dataset: str | None = None
) -> list[Utterance]:
    """Lists the utterances of a manifest.

    Args:
        root: the manifest itself, or a folder that holds it.
        file: name of the manifest in that folder; by default manifest.jsonl, else manifest.csv.
        dataset: name of the corpus, where the manifest does not tell (levels are calibrated by corpus).

    Raises:
        DataError: no manifest, an unknown column, or a value outside the allowed ones; names file and line.
    """
    path = _find(Path(root).expanduser(), file)
    utterances = _read_csv(path) if path.suffix.lower() == ".csv" else read_manifest(path)
    for number, utterance in enumerate(utterances, 1):
        for field, allowed in (("emotion", ALL_LABELS), ("gender", _GENDERS), ("split", _SPLITS)):
            value = getattr(utterance, field)
            if value is not None and value not in allowed:
                raise DataError(
                    f"{path}: utterance {number} ({utterance.id}): {field} {value!r} is not one of "
                    f"{', '.join(allowed)} (leave it out where it is unknown)"
                )
    if dataset is not None:
        utterances = [
            replace(utterance, dataset=dataset) if utterance.dataset == "manifest" else utterance
            for utterance in utterances
        ]
    return utterances


def _find(root: Path, file: str | None) -> Path:
    if root.is_file():
        return root
    names = (file,) if file else ("manifest.jsonl", "manifest.csv")
    for name in names:
        if (root / name).is_file():
            return root / name
    raise DataError(
        f"{root}: no {' or '.join(names)} here. Expected is JSONL or CSV with the fields "
        f"{', '.join(_COLUMNS)} (only audio is required)."
    )


def _read_csv(path: Path) -> list[Utterance]:
    utterances = []
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        unknown = set(reader.fieldnames or ()) - set(_COLUMNS)
        if unknown or "audio" not in (reader.fieldnames or ()):
            raise DataError(
                f"{path}: columns {reader.fieldnames}; `audio` is required, allowed are {', '.join(_COLUMNS)}"
            )
        for row in reader:
            if None in row or not row["audio"]:
                raise DataError(f"{path}:{reader.line_num}: no audio path, or more cells than columns")
            values: dict[str, Any] = {
                column: cell.strip() for column, cell in row.items() if cell and cell.strip()
            }
            values.setdefault("id", Path(values["audio"]).with_suffix("").as_posix())
            values["audio"] = str((path.parent / values["audio"]).resolve())
            utterances.append(Utterance(**values))
    return utterances
