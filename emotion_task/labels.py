"""The emotion labels: the nine of EmotionThinker, and those that single corpora add.

A list may have a set of its own (`corpus.args.emotions`): the line hands it to the task
(`rl.task.args.labels`), and each model of the line has its set in a file beside the weights (`LABELS_FILE`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from rlcore.errors import ConfigError
from rlcore.records.files import read_json

EMOTIONS = ("neutral", "happy", "sad", "angry", "disgust", "confused", "whisper", "surprise", "fear")
"""The paper's nine labels; `disgust` stands for its "contempt or disgust"."""

EXTRA = ("calm",)
"""Labels outside the nine that a corpus uses (RAVDESS: calm)."""

ALL_LABELS = EMOTIONS + EXTRA

LABELS_FILE = "emotion_labels.json"
"""Name of the file beside a model of the line that holds the options of its training."""


def labels_beside(model_path: str | Path) -> list[str] | None:
    """Returns the labels that a model was trained with; None where no file beside it tells.

    Raises:
        ConfigError, DataError: the file holds anything else; names it.
    """
    path = Path(model_path) / LABELS_FILE
    labels: list[str] | None = read_json(path) or None
    if labels is not None:
        check_set(labels, str(path))
    return labels


def labels_among(emotions: Iterable[str | None]) -> list[str]:
    """Returns the labels that occur: the options of the emotion question.

    Those of `ALL_LABELS` come in its order, others after them, sorted.
    """
    used = {emotion for emotion in emotions if emotion is not None}
    return [label for label in ALL_LABELS if label in used] + sorted(used - set(ALL_LABELS))


def check_labels(labels: Sequence[str], setting: str, others: Collection[str] = ()) -> None:
    """Checks that every name is a label.

    Args:
        others: labels that are allowed beside `ALL_LABELS`.

    Raises:
        ConfigError: a name is none: no answer could give it, so all would be wrong.
    """
    if unknown := sorted(set(labels) - set(ALL_LABELS) - set(others)):
        allowed = [*ALL_LABELS, *sorted(set(others) - set(ALL_LABELS))]
        raise ConfigError(f"{setting}: {unknown} are not labels; allowed are {allowed}")


def check_set(labels: Sequence[str], setting: str) -> None:
    """Checks that a set of labels of one's own can be read in answers.

    Raises:
        ConfigError: not a list of different names in small letters a to z, with single spaces between words.
    """
    is_list = isinstance(labels, list | tuple) and all(isinstance(label, str) for label in labels)
    if not is_list or not labels or len(set(labels)) < len(labels):
        raise ConfigError(
            f"{setting}: got {labels!r}; it is a list of different labels, such as [joy, anger]"
        )
    if wrong := [label for label in labels if not re.fullmatch(r"[a-z]+( [a-z]+)*", label)]:
        raise ConfigError(f"{setting}: {wrong}: labels are words in small letters a to z, such as 'mild joy'")
