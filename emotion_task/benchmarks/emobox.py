"""EmoBox (Ma et al. 2024, Interspeech): 32 corpora of emotional speech in fixed folds.

    root/data/savee/fold_1/savee_test_fold_1.jsonl      rows of a fold's test part (github.com/emo-box/EmoBox)
    root/data/savee/label_map.json                      class by the corpus' own label
    root/downloads/savee/JE_n23.wav                     as `wav` of a row names it, relative to root

A model that is not trained on the corpus answers every fold's test part: with leave-one-out folds that is the
whole corpus, each recording once. Classes are EmoBox's own, which are not always those of our readers.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from emotion_task.benchmarks.reading.questions import (
    Benchmark,
    Question,
    Questions,
    checked,
    listed_rows,
    text_of,
)
from rlcore.errors import DataError
from rlcore.records.files import read_json

LAYOUT = (
    "Expected is a checkout of github.com/emo-box/EmoBox (data/CORPUS/fold_1/CORPUS_test_fold_1.jsonl and "
    "data/CORPUS/label_map.json) with the recordings in downloads/, or one corpus (data/CORPUS) or fold."
)


def load_emobox(path: Path, split: str) -> Questions:
    """Lists the test parts of all folds of the corpora whose recordings are there.

    Args:
        path: folder of EmoBox, of one of its corpora (`data/savee`) or of one fold (`data/savee/fold_1`).

    Raises:
        DataError: no fold, a fold without its list or classes, a row without `key`, `wav` or `emo`, a label
            without a class, or no recording.
    """
    folds = _folds(path)
    questions: dict[str, Question] = {}
    left_out: Counter[str] = Counter()
    for fold in folds:
        corpus, root = fold.parent.name, fold.parents[2]
        classes = _classes(fold.parent / "label_map.json")
        labels = tuple(sorted(set(classes.values())))
        file = fold / f"{corpus}_test_{fold.name}.jsonl"
        if not file.is_file():
            raise DataError(f"{file}: no such file. {LAYOUT}")
        for where, row in listed_rows(file):
            key, label = text_of(row, "key", where), text_of(row, "emo", where)
            recording = root / text_of(row, "wav", where)
            if label not in classes:
                raise DataError(f"{where}: {label!r} has no class in {fold.parent / 'label_map.json'}")
            if row.get("start_time") is not None:
                left_out[f"a part of a longer recording of {corpus}, which is not cut"] += 1
            elif not recording.is_file():
                left_out[f"no recording of {corpus}"] += 1
            elif key in questions:
                left_out[f"in the test part of two folds of {corpus}"] += 1
            else:
                questions[key] = Question(
                    id=key,
                    audio=str(recording.resolve()),
                    choices=labels,
                    answer=classes[label],
                    groups={"dataset": corpus, "fold": f"{corpus} {fold.name}"},
                )
    found = Questions(questions=tuple(questions.values()), left_out=dict(left_out))
    return checked(found, "EmoBox", path, LAYOUT)


def _folds(path: Path) -> list[Path]:
    path = path.resolve()
    found = [path] if path.name.startswith("fold_") else []
    found = found or [*path.glob("data/*/fold_*"), *path.glob("fold_*")]
    folds = sorted(folder for folder in found if folder.is_dir())
    if not folds:
        raise DataError(f"{path}: {'no fold here' if path.is_dir() else 'no such folder'}. {LAYOUT}")
    return folds


def _classes(path: Path) -> dict[str, str]:
    """Returns the classes, in small letters as answers are read, by the corpus' own label."""
    classes = read_json(path)
    if not isinstance(classes, dict) or not classes:
        raise DataError(f"{path}: an object of classes by label is expected. {LAYOUT}")
    return {str(label): str(name).lower() for label, name in classes.items()}


BENCHMARK = Benchmark(load=load_emobox, asks_emotion=True)
