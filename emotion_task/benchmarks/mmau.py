"""MMAU (Sakshi et al. 2024, arXiv 2410.19168): sound, music and speech, 1000 questions with answers.

    root/mmau-test-mini.json                  a list of rows (github.com/Sakshi113/MMAU)
    root/test-mini-audios/3fe64f3d-....wav    as `audio_id` of a row names it

The 9000 questions of the test set (mmau-test.json) come without answers: they are asked, and their owners
grade the predictions. The owners publish no prompt; theirs is the rule that grades (`read_choice`).
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

LAYOUT = "Expected is mmau-test-mini.json beside test-mini-audios/, as github.com/Sakshi113/MMAU ships them."
NAMES = ("mmau-test-mini.json", "mmau-test.json")
_GROUPS = ("task", "difficulty", "category", "sub-category")


def load_mmau(path: Path, split: str) -> Questions:
    """Lists the questions of a folder, or of one of the two lists in it.

    Raises:
        DataError: no list, a row without question, choices or `audio_id`, or no recording.
    """
    file = find_list(path, NAMES, LAYOUT)
    reading = Reading("MMAU", file, LAYOUT)
    for where, row in listed_rows(file):
        reading.add(
            text_of(row, "id", where),
            file.parent / text_of(row, "audio_id", where),
            text=text_of(row, "question", where),
            choices=texts_of(row, "choices", where),
            answer=text_of(row, "answer", where) if row.get("answer") else None,
            groups={kind: row.get(kind) for kind in _GROUPS},
            row=row,
        )
    return reading.done()


BENCHMARK = Benchmark(load=load_mmau, prediction_key="model_prediction")
