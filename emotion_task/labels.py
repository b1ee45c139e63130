"""The emotion labels: the nine of EmotionThinker, and those that single corpora add."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rlcore.errors import ConfigError

EMOTIONS = ("neutral", "happy", "sad", "angry", "disgust", "confused", "whisper", "surprise", "fear")
"""The paper's nine labels; `disgust` stands for its "contempt or disgust"."""

EXTRA = ("calm",)
"""Labels outside the nine that a corpus uses (RAVDESS: calm)."""

ALL_LABELS = EMOTIONS + EXTRA


def labels_among(emotions: Iterable[str | None]) -> list[str]:
    """Returns the labels that occur, in the order of `ALL_LABELS`: the options of the emotion question."""
    used = set(emotions)
    return [label for label in ALL_LABELS if label in used]


def check_labels(labels: Sequence[str], setting: str) -> None:
    """Checks that every name is a label.

    Raises:
        ConfigError: a name is none: no answer could give it, so all would be wrong.
    """
    if unknown := sorted(set(labels) - set(ALL_LABELS)):
        raise ConfigError(f"{setting}: {unknown} are not labels; allowed are {list(ALL_LABELS)}")
