"""Exports traces as a data set in the hub's layout: Parquet shards by split, and a card that describes them.

    out/README.md                                 the card; its header tells `datasets` where the shards are
    out/data/train-00000-of-00002.parquet ...

`datasets.load_dataset(out)` reads the folder, here or from the hub.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from emotion_task.cot.checks import KINDS
from emotion_task.cot.statistics import describe
from emotion_task.records import Utterance, read_manifest
from rlcore.errors import DataError
from rlcore.records.files import read_json

SPLITS = {"train": "train", "eval": "test"}
"""Exported split by our split. Utterances of any other split, such as a corpus' development part, are
`other`."""
_OURS = re.compile(r"(train|test|other)-\d{5}-of-\d{5}\.parquet")
SHARD_ROWS = 1000
_TEXTS = (
    *("id", "dataset", "speaker", "gender", "age_level", "language", "emotion", "text", "text_emotion"),
    *("pitch_level", "energy_level", "speed_level", "intonation"),
)
_MEANING = {
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
    "trace": "`<think>reasoning</think><answer>emotion</answer>`",
}


def export_dataset(
    traces: str | Path,
    out_folder: str | Path,
    *,
    with_audio: bool = False,
    license: str = "other",
    name: str = "EmotionCoT",
) -> dict[str, int]:
    """Writes the data set and its card.

    Args:
        traces: folder of `emotion cot`, or a manifest with traces.
        out_folder: a new folder, or an earlier export, whose data are replaced.
        with_audio: whether the recordings are put in. Many corpora do not allow to pass them on.
        license: licence for the card, as the hub spells it.
        name: title of the card.

    Returns:
        Number of rows by exported split.
    Raises:
        DataError: No utterance has a trace, a recording is missing, or `out_folder` holds other files than
            those of an earlier export.
    """
    traces, out = Path(traces), Path(out_folder)
    manifest = traces / "manifest.jsonl" if traces.is_dir() else traces
    utterances = [u for u in read_manifest(manifest) if u.trace]
    if not utterances:
        raise DataError(f"{manifest}: no utterance has a trace; write them with `emotion cot`")
    data = _emptied(out)
    roots = _roots(utterances)
    counts = {}
    for exported in (*SPLITS.values(), "other"):
        chosen = [u for u in utterances if SPLITS.get(str(u.split), "other") == exported]
        if chosen:
            counts[exported] = len(chosen)
            _write_shards(data, exported, chosen, roots, with_audio)
    generated = _statistics_beside(manifest)
    (out / "README.md").write_text(
        card(utterances, counts, generated, license=license, name=name), encoding="utf-8"
    )
    return counts


def _emptied(out: Path) -> Path:
    """Returns the folder of the shards, after deleting those of an earlier export."""
    data = out / "data"
    others = [path for path in data.iterdir() if not _OURS.fullmatch(path.name)] if data.is_dir() else []
    if others or ((out / "README.md").exists() and not data.is_dir()):
        raise DataError(
            f"{out}: holds {others[0] if others else out / 'README.md'}, which no export has written; give "
            "--out a new folder, or one that an earlier export made"
        )
    data.mkdir(parents=True, exist_ok=True)
    for path in data.iterdir():
        path.unlink()
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
    lines = [f"| {a} | {b} |" for a, b in (head, ("---", "---"), *rows)]
    return "\n".join(lines)


def _statistics_beside(manifest: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(manifest.parent / "statistics.json")
    return found


def _columns() -> tuple[str, ...]:
    return ("audio", *_TEXTS, "age_years", "stressed_words", "measured", "trace")


def _roots(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Returns, by corpus, the folder that holds all its recordings: paths are told below it, so that nothing
    above it becomes public."""
    folders: dict[str, list[str]] = {}
    for utterance in utterances:
        folders.setdefault(utterance.dataset, []).append(os.path.dirname(utterance.audio))
    return {dataset: os.path.commonpath(found) for dataset, found in folders.items()}


def _write_shards(
    data: Path, split: str, utterances: Sequence[Utterance], roots: dict[str, str], with_audio: bool
) -> None:
    """Writes a thousand rows at a time, so that recordings need not all fit into memory."""
    import datasets
    import pyarrow
    from pyarrow import parquet

    features = datasets.Features(
        {
            "audio": datasets.Audio(decode=False) if with_audio else datasets.Value("string"),
            **{name: datasets.Value("string") for name in (*_TEXTS, "measured", "trace")},
            "age_years": datasets.Value("float32"),
            "stressed_words": datasets.List(datasets.Value("string")),
        }
    )
    shards = [utterances[i : i + SHARD_ROWS] for i in range(0, len(utterances), SHARD_ROWS)]
    for number, shard in enumerate(shards):
        # The schema carries the features. `Dataset` would decode sound that only has to be passed on.
        table = pyarrow.Table.from_pylist(list(_rows(shard, roots, with_audio)), schema=features.arrow_schema)
        parquet.write_table(table, data / f"{split}-{number:05d}-of-{len(shards):05d}.parquet")


def _rows(
    utterances: Sequence[Utterance], roots: dict[str, str], with_audio: bool
) -> Iterator[dict[str, object]]:
    for utterance in utterances:
        path = os.path.relpath(utterance.audio, roots[utterance.dataset])
        row = {name: getattr(utterance, name) for name in (*_TEXTS, "age_years", "stressed_words", "trace")}
        row["measured"] = json.dumps(utterance.measured) if utterance.measured else None
        row["audio"] = {"path": path, "bytes": _bytes(utterance)} if with_audio else path
        yield row


def _bytes(utterance: Utterance) -> bytes:
    try:
        return Path(utterance.audio).read_bytes()
    except OSError as error:
        raise DataError(f"{utterance.audio}: no recording of {utterance.id}: {error}") from error
