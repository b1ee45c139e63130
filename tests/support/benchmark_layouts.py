"""Small folders in the layouts of benchmarks' owners, with the rows that their files really have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

_MMAU = {
    "dataset": "AudioSet",
    "split": "test-mini",
    "category": "Reasoning",
    "sub-category": "Acoustic Source Inference",
}
MMAU = [
    {
        "id": "3fe64f3d",
        "audio_id": "./test-mini-audios/3fe64f3d.wav",
        "question": "Based on the given audio, identify the source of the speaking voice.",
        "choices": ["Man", "Woman", "Child", "Robot"],
        "answer": "Man",
        "task": "sound",
        "difficulty": "medium",
        **_MMAU,
    },
    {
        "id": "72fb5481",
        "audio_id": "./test-mini-audios/72fb5481.wav",
        "question": "Who {really} speaks?",
        "choices": ["A child", "A woman", "An adult man", "A teenager"],
        "answer": "a teenager",
        "task": "speech",
        "difficulty": "easy",
        **_MMAU,
    },
]
MMAR = [
    {
        "id": "BV1_00-00-13",
        "audio_path": "./audio/BV1_00-00-13.wav",
        "question": "Who laughs?",
        "choices": ["the first speaker", "the second speaker"],
        "answer": "the second speaker",
        "modality": "speech",
        "category": "Semantic Layer",
        "sub-category": "Speaker Analysis",
        "language": "en",
        "source": "youtube",
        "url": "https://example.com",
        "timestamp": "00:11:10,00:11:30",
    }
]
MMSU = [
    {
        "id": "code_switch_7aff",
        "task_name": "code_switch_question_answering",
        "audio_path": "/audio/code_switch_7aff.wav",
        "question": "What did the speaker receive?",
        "choice_a": "A cake.",
        "choice_b": "Chocolate.",
        "choice_c": "A fruit basket.",
        "choice_d": "A drink.",
        "answer_gt": "Chocolate.",
        "category": "Reasoning",
        "sub-category": "Linguistics",
        "sub-sub-category": "Semantics",
        "linguistics_sub_discipline": "Semantics",
    },
    {
        "id": "volume_0c1d",
        "task_name": "volume_comparison",
        "audio_path": "./audio/volume_0c1d.wav",
        "question": "Which is louder?",
        "choice_a": "The first",
        "choice_b": "The second",
        "choice_c": None,
        "choice_d": None,
        "answer_gt": "The second",
        "category": "Perception",
        "sub-category": "Paralinguistics",
        "sub-sub-category": "Speaking Style",
        "linguistics_sub_discipline": "",
    },
]
DAILY_OMNI = [
    {
        "Question": "What is the intent of the creator's address?",
        "Choice": ["A. To explain sales", "B. To promote content", "C. To compare", "D. To answer critics"],
        "Answer": "D",
        "video_id": "bswbQtOPk6E",
        "Type": "Inference",
        "content_parent_category": "Entertainment",
        "content_fine_category": "Game Reviews",
        "video_category": "Gaming",
        "video_duration": "30s",
    }
]
_EMOBOX = {"type": "raw", "sample_rate": 44100, "num_frame": 148849.0, "task": "category", "channel": 1}
EMOBOX = [
    {"key": f"savee-JE-{stem}", "dataset": "savee", "wav": f"downloads/savee/JE_{stem}.wav", "emo": label}
    | _EMOBOX
    for stem, label in (("n23", "n"), ("su08", "su"), ("a12", "a"))
]
EMOBOX_CLASSES = {"a": "Angry", "n": "Neutral", "su": "Surprise"}


def sound(path: Path, seconds: float = 0.2, channels: int = 1) -> None:
    """Writes noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    soundfile.write(path, 0.1 * rng.standard_normal((int(16000 * seconds), channels)), 16000)


def as_json(path: Path, rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")


def as_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_mmau(root: Path) -> None:
    as_json(root / "mmau-test-mini.json", MMAU)
    for row in MMAU:
        sound(root / str(row["audio_id"]), channels=2)


def make_mmar(root: Path) -> None:
    as_json(root / "MMAR-meta.json", MMAR)
    for row in MMAR:
        sound(root / str(row["audio_path"]))


def make_mmsu(root: Path) -> None:
    as_lines(root / "question" / "mmsu.jsonl", MMSU)
    for row in MMSU:
        sound(root / str(row["audio_path"]).lstrip("./"))


def make_daily_omni(root: Path) -> None:
    as_json(root / "qa.json", DAILY_OMNI)
    sound(root / "Videos" / "bswbQtOPk6E" / "bswbQtOPk6E_audio.wav")


def make_emobox(root: Path) -> None:
    folder = root / "data" / "savee"
    as_json(folder / "label_map.json", EMOBOX_CLASSES)
    as_lines(folder / "fold_1" / "savee_test_fold_1.jsonl", EMOBOX[:2])
    as_lines(folder / "fold_2" / "savee_test_fold_2.jsonl", EMOBOX[2:])
    for row in EMOBOX:
        sound(root / str(row["wav"]))


MAKERS: dict[str, Callable[[Path], None]] = {
    "mmau": make_mmau,
    "mmar": make_mmar,
    "mmsu": make_mmsu,
    "daily_omni": make_daily_omni,
    "emobox": make_emobox,
}
"""Writers of a benchmark's folder, by name."""
