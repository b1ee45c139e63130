"""The emotion labels: the nine of EmotionThinker, and those that single corpora add."""

from __future__ import annotations

EMOTIONS = ("neutral", "happy", "sad", "angry", "disgust", "confused", "whisper", "surprise", "fear")
"""The paper's nine; `disgust` stands for its "contempt or disgust"."""

EXTRA = ("calm",)
"""Labels outside the nine that a corpus uses (RAVDESS: calm)."""

ALL_LABELS = EMOTIONS + EXTRA
