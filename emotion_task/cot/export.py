"""Exports traces as a data set in the hub's layout: Parquet shards by split, and a card that describes them.

    out/README.md                                 the card; its header tells `datasets` where the shards are
    out/data/train-00000-of-00002.parquet ...
    out/left_out.jsonl                            id and reason of utterances whose recording is not to be had

`datasets.load_dataset(out)` reads the folder, here or from the hub, and so does the corpus `manifest`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from emotion_task.corpora.reading.exported import JSON_TEXTS, SPLITS, is_shard
from emotion_task.cot.checks import KINDS
from emotion_task.cot.statistics import describe
from emotion_task.records import Utterance, read_manifest
from rlcore.errors import DataError
from rlcore.records.files import read_json, write_rows
from rlcore.records.markdown import table_row

_SHARD_BYTES, _GROUP_BYTES = 400 << 20, 64 << 20
"""Most bytes of a shard and of a row group. Arrow's readers take no more than 2 GB of bytes at once."""
_MOST_BYTES = 2**31 - (1 << 20)
"""Most bytes of one recording, for the same reason."""
_LEFT_OUT = "left_out.jsonl"
_Sized = tuple[Utterance, int]
"""An utterance and the bytes of its row."""
_TEXTS = (
    *("id", "dataset", "speaker", "gender", "age_level", "language", "emotion", "text", "text_emotion"),
    *("pitch_level", "energy_level", "speed_level", "intonation"),
)
_OTHERS = ("channel", "age_years", "stressed_words")
_MEANING = {
    "channel": "of the recording, from 1, where its channels differ",
    "audio": "the recording (`--with-audio`), else its path below its corpus' folder",
    "id": "unique",
    "dataset": "the corpus",
    "speaker": "unique across corpora",
    "gender": "male or female, where it is known",
    "age_level": "child, young, middle-aged or elderly, where the age is known",
    "age_years": "where it is known",
    "language": "ISO 639-1 code of the words",
    "emotion": "what the corpus says that the voice expresses",
    "text": "the words",
    "text_emotion": "what the words alone suggest, where the corpus tells",
    "pitch_level": "low, normal, high: tertiles of the corpus and gender",
    "energy_level": "low, normal, high: tertiles of the corpus",
    "speed_level": "slow, normal, fast: tertiles of the corpus",
    "intonation": "contour of the pitch",
    "stressed_words": "where the corpus tells, or an aligner heard them",
    "measured": "JSON: the measurement in physical units",
    "extra": "JSON: what else the corpus tells, by its own name",
    "trace": "`<think>reasoning</think><answer>emotion</answer>`",
}


@dataclass(frozen=True, slots=True)
class Exported:
    """Counts what an export wrote, and names what it left out."""

    counts: dict[str, int]
    """Number of rows by exported split."""
    left_out: list[dict[str, str]]
    """Id and reason of each utterance whose recording could not be read."""


def export_dataset(
    traces: str | Path,
    out_folder: str | Path,
    *,
    with_audio: bool = False,
    license: str = "other",
    name: str = "EmotionCoT",
) -> Exported:
    """Writes the data set and its card.

    Args:
        traces: folder of `emotion cot`, or a manifest with traces.
        out_folder: a new folder, or an earlier export, whose data are replaced.
        with_audio: whether the recordings are put in. Many corpora do not allow to pass them on.
        license: licence for the card, as the hub spells it.
        name: title of the card.

    Raises:
        DataError: No utterance has a trace, no recording can be read, or `out_folder` holds other files than
            those of an earlier export.
    """
    traces, out = Path(traces), Path(out_folder)
    manifest = traces / "manifest.jsonl" if traces.is_dir() else traces
    utterances = [u for u in read_manifest(manifest) if u.trace]
    if not utterances:
        raise DataError(f"{manifest}: no utterance has a trace; write them with `emotion cot`")
    shards = _Shards(_emptied(out), _roots(utterances), with_audio)
    for exported in (*SPLITS.values(), "other"):
        shards.write(exported, [u for u in utterances if SPLITS.get(str(u.split), "other") == exported])
    if len(shards.left_out) == len(utterances):
        raise DataError(f"{manifest}: none of {len(utterances)} recordings: {shards.left_out[0]['reason']}")
    if shards.left_out:
        write_rows(out / _LEFT_OUT, shards.left_out)
    ids = {row["id"] for row in shards.left_out}
    kept, generated = [u for u in utterances if u.id not in ids], _statistics_beside(manifest)
    (out / "README.md").write_text(
        card(kept, shards.counts, generated, license=license, name=name), encoding="utf-8"
    )
    return Exported(shards.counts, shards.left_out)


def _emptied(out: Path) -> Path:
    """Returns the folder of the shards, after deleting those of an earlier export."""
    data = out / "data"
    others = [path for path in data.iterdir() if not is_shard(path)] if data.is_dir() else []
    if others or ((out / "README.md").exists() and not data.is_dir()):
        raise DataError(
            f"{out}: holds {others[0] if others else out / 'README.md'}, which no export has written; give "
            "--out a new folder, or one that an earlier export made"
        )
    data.mkdir(parents=True, exist_ok=True)
    for path in (*data.iterdir(), out / _LEFT_OUT):
        path.unlink(missing_ok=True)
    return data


def card(
    utterances: Sequence[Utterance],
    counts: dict[str, int],
    generated: dict[str, Any],
    *,
    license: str,
    name: str,
) -> str:
    """Returns the data set's card: a YAML header as the hub reads it, then Markdown.

    Args:
        counts: number of rows by exported split.
        generated: `statistics.json` of the generation, empty where the traces have another origin.
        license: licence, as the hub spells it.
        name: title of the card.
    """
    header = {
        "license": license,
        "pretty_name": name,
        "task_categories": ["audio-classification"],
        "tags": ["speech", "emotion", "prosody", "reasoning"],
        "language": sorted({u.language for u in utterances if u.language}),
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": s, "path": f"data/{s}-*.parquet"} for s in counts],
            }
        ],
    }
    facts = describe(utterances)
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---",
        f"# {name}",
        "Recordings of speech with measured prosody, the emotion, and a written trace of reasoning that "
        "leads from one to the other.",
        _origin(generated),
        "## What is in it",
        _table(("split", "utterances"), counts.items()),
        _table(("emotion", "utterances"), facts["by_emotion"].items()),
        _table(("corpus", "utterances"), facts["by_dataset"].items()),
        f"{facts['num_speakers']} speakers. Words of reasoning: "
        + ", ".join(f"{value:.0f} ({name})" for name, value in facts["words"].items())
        + ".",
        "## Fields",
        _table(("field", "meaning"), ((f, _MEANING[f]) for f in _columns())),
        "## Faithfulness",
        "Claims that rules find in the reasoning, checked against the fields (share, rounded):",
        _table(("rate", "value"), facts["faithfulness"].items()),
        "## Rights",
        "The recordings and transcripts belong to the owners of the corpora above, under their terms; the "
        "licence of this card covers the traces.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _origin(generated: dict[str, Any]) -> str:
    if not generated:
        return ""
    rejected = generated["rejected_traces"]
    total, kept = generated["num_utterances"], generated["num_accepted"]
    return (
        f"Written by `{generated['model']}` from the fields and the words; it did not hear the recordings. "
        f"Rules kept a trace for {kept} of {total} utterances. Traces that they rejected, by check: "
        + (", ".join(f"{kind} {rejected[kind]}" for kind in KINDS if kind in rejected) or "none")
        + "."
    )


def _table(head: tuple[str, str], rows: Iterable[tuple[str, object]]) -> str:
    return "\n".join(map(table_row, (head, ("---", "---"), *rows)))


def _statistics_beside(manifest: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(manifest.parent / "statistics.json")
    return found


def _columns() -> tuple[str, ...]:
    return ("audio", *_TEXTS, *_OTHERS, *JSON_TEXTS, "trace")


def _roots(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Returns, by corpus, the folder that holds all its recordings: paths are told below it, so that nothing
    above it becomes public."""
    folders: dict[str, list[str]] = {}
    for utterance in utterances:
        folders.setdefault(utterance.dataset, []).append(os.path.dirname(utterance.audio))
    return {dataset: os.path.commonpath(found) for dataset, found in folders.items()}


class _Shards:
    """Writes shards, one row group after another, so that recordings need not all fit into memory."""

    def __init__(self, data: Path, roots: dict[str, str], with_audio: bool):
        import datasets

        self._data, self._roots, self._with_audio = data, roots, with_audio
        features = datasets.Features(
            {
                "audio": datasets.Audio(decode=False) if with_audio else datasets.Value("string"),
                **{name: datasets.Value("string") for name in (*_TEXTS, *JSON_TEXTS, "trace")},
                "channel": datasets.Value("int64"),
                "age_years": datasets.Value("float64"),
                "stressed_words": datasets.List(datasets.Value("string")),
            }
        )
        # The schema carries the features. `Dataset` would decode sound that only has to be passed on.
        self._schema = features.arrow_schema
        self.counts: dict[str, int] = {}
        self.left_out: list[dict[str, str]] = []

    def write(self, split: str, utterances: Sequence[Utterance]) -> None:
        """Writes the shards of an exported split, none where there are no rows."""
        import pyarrow
        from pyarrow import parquet

        sized = [(u, size) for u in utterances if (size := self._size(u)) is not None]
        shards = list(_packed(sized, _SHARD_BYTES))
        for number, shard in enumerate(shards):
            path = self._data / f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
            with parquet.ParquetWriter(path, self._schema) as writer:
                for group in _packed(shard, _GROUP_BYTES):
                    rows = [row for u, _ in group if (row := self._row(u)) is not None]
                    self.counts[split] = self.counts.get(split, 0) + len(rows)
                    writer.write_table(pyarrow.Table.from_pylist(rows, schema=self._schema))

    def _size(self, utterance: Utterance) -> int | None:
        """Returns the bytes of a row; None where it is left out."""
        try:
            sound = os.stat(utterance.audio).st_size if self._with_audio else 0
        except (OSError, ValueError) as error:
            self._leave_out(utterance, error)
            return None
        if sound > _MOST_BYTES:
            self._leave_out(utterance, f"{sound / 1e9:.1f} GB; Parquet holds 2 GB of a recording")
            return None
        return sound + len(repr(utterance))

    def _row(self, utterance: Utterance) -> dict[str, object] | None:
        path = os.path.relpath(utterance.audio, self._roots[utterance.dataset])
        row = {name: getattr(utterance, name) for name in (*_TEXTS, *_OTHERS, "trace")}
        for name in JSON_TEXTS:
            value = getattr(utterance, name)
            row[name] = json.dumps(value, ensure_ascii=False) if value else None
        try:
            sound = Path(utterance.audio).read_bytes() if self._with_audio else None
        except OSError as error:
            self._leave_out(utterance, error)
            return None
        return {**row, "audio": path if sound is None else {"path": path, "bytes": sound}}

    def _leave_out(self, utterance: Utterance, reason: Exception | str) -> None:
        # Paths are told below the corpus' folder: the file may be published with the others.
        path = os.path.relpath(utterance.audio, self._roots[utterance.dataset])
        told = getattr(reason, "strerror", None) or str(reason)
        self.left_out.append({"id": utterance.id, "reason": f"{path}: no recording: {told}"})


def _packed(sized: Sequence[_Sized], most_bytes: int) -> Iterator[list[_Sized]]:
    """Yields runs of rows that together have at most `most_bytes`, or hold one row."""
    run: list[_Sized] = []
    total = 0
    for utterance, size in sized:
        if run and total + size > most_bytes:
            yield run
            run, total = [], 0
        run.append((utterance, size))
        total += size
    if run:
        yield run
