"""MMAR (Ma et al. 2025, arXiv 2505.13032): reasoning about speech, sound, music and their mixes.

    root/MMAR-meta.json               a list of 1000 rows (huggingface.co/datasets/BoJack/MMAR)
    root/audio/....wav                of mmar-audio.tar.gz, as `audio_path` of a row names it

MMAR-meta.jsonl (github.com/ddlBoJack/MMAR) has the same rows. Graded by MMAU's rule, as its owners do.
"""

from __future__ import annotations

from pathlib import Path

from emotion_task.benchmarks.reading.questions import (
    Benchmark,
    Questions,
    Reading,
    find_list,
    listed_rows,
    text_of,
    texts_of,
)

LAYOUT = (
    "Expected is MMAR-meta.json (or .jsonl) beside the unpacked audio/ of mmar-audio.tar.gz, as "
    "huggingface.co/datasets/BoJack/MMAR ships them."
)
NAMES = ("MMAR-meta.json", "MMAR-meta.jsonl")
_GROUPS = ("modality", "category", "sub-category")


def load_mmar(path: Path, split: str) -> Questions:
    """Lists the questions of a folder, or of the list in it.

    Raises:
        DataError: no list, a row without question, choices, answer or `audio_path`, or no recording.
    """
    file = find_list(path, NAMES, LAYOUT)
    reading = Reading("MMAR", file, LAYOUT)
    for where, row in listed_rows(file):
        reading.add(
            text_of(row, "id", where),
            file.parent / text_of(row, "audio_path", where),
            text=text_of(row, "question", where),
            choices=texts_of(row, "choices", where),
            answer=text_of(row, "answer", where),
            groups={kind: row.get(kind) for kind in _GROUPS},
            row=row,
        )
    return reading.done()


BENCHMARK = Benchmark(load=load_mmar, prediction_key="model_prediction")
