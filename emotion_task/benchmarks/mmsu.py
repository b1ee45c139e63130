"""MMSU (Wang et al. 2025, arXiv 2506.04779): 47 tasks of spoken language, perception and reasoning.

    root/question/mmsu.jsonl          5000 rows (huggingface.co/datasets/ddwang2000/MMSU)
    root/audio/....wav                as `audio_path` of a row names it (`/audio/....wav`)
    root/data/train-*.parquet         the same rows with their recordings, read where there is no list

Some questions have two choices, and null in the place of the others. The prompt is that of the owners'
mmsu_inference.py, without choices that do not exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emotion_task.benchmarks.reading.questions import (
    Benchmark,
    Questions,
    Reading,
    find_list,
    listed_rows,
    text_of,
)
from emotion_task.corpora.reading.hub import parquet_rows
from rlcore.inputs.hub import shards_in

LAYOUT = (
    "Expected is question/mmsu.jsonl beside audio/, or data/train-*.parquet, as "
    "huggingface.co/datasets/ddwang2000/MMSU ships them."
)
NAMES = ("question/mmsu.jsonl", "mmsu.jsonl")
PROMPT = (
    "Choose the most suitable answer from options A, B, C, and D to respond the question in next line, **you "
    "should only choose A or B or C or D.** Do not provide any additional explanations or content.\n\n"
    "Question: {question}\n\n{choices}"
)
_CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
_BATCH_ROWS = 64


def load_mmsu(path: Path, split: str) -> Questions:
    """Lists the questions of a folder, or of the list in it. Recordings inside Parquet are written to
    `audio/` in the folder, once.

    Raises:
        DataError: no list, a row without question, two choices, answer or recording, or no recording.
    """
    reading = Reading("MMSU", path, LAYOUT)
    for where, row in _rows(path):
        category, sub, third = (row.get(f"{sub}category") for sub in ("", "sub-", "sub-sub-"))
        reading.add(
            text_of(row, "id", where),
            Path(text_of(row, "audio", where)),
            text=text_of(row, "question", where),
            choices=[str(row[key]) for key in _CHOICES if row.get(key) not in (None, "")],
            answer=text_of(row, "answer_gt", where),
            groups={
                "category": category,
                # The columns of the owners' leaderboard.
                "dimension": f"{third if sub == 'Linguistics' else sub} ({category})",
                "task": row.get("task_name"),
            },
            row={key: value for key, value in row.items() if key != "audio"},
        )
    return reading.done()


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields place and content of each row, with the path of its recording as `audio`."""
    is_listed = path.is_file() or any((path / name).is_file() for name in NAMES)
    shards = [] if is_listed else shards_in(path)
    for shard in shards:
        for number, row in enumerate(parquet_rows(shard, path, path, _BATCH_ROWS), 1):
            yield f"{shard}: row {number}", row
    if not shards:
        file = find_list(path, NAMES, LAYOUT)
        root = file.parent.parent if file.parent.name == "question" else file.parent
        for where, row in listed_rows(file):
            yield where, row | {"audio": str(root / text_of(row, "audio_path", where).lstrip("./"))}


BENCHMARK = Benchmark(load=load_mmsu, prompt=PROMPT, prediction_key="response")
