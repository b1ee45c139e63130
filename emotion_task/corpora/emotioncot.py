"""EmotionCoT (Wang et al., 2026, ICLR, arXiv:2601.15668) as its authors ship it: annotations without sound.

    root/*.jsonl      audio_path, transcription, emotion, pitch_level, energy_level, speed_level,
                      stressed_words, intonation, gender, age_level, cot_analysis

The recordings are those of IEMOCAP, MELD, Expresso, EARS and MSP-Podcast, from their owners.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import Listing
from emotion_task.facts import VALUES
from emotion_task.labels import EMOTIONS
from emotion_task.parsing import format_response, normalise_label, parse_response
from emotion_task.records import Utterance
from rlcore.errors import DataError
from rlcore.records.files import numbered_rows

LABELS = {label: label for label in EMOTIONS}
LAYOUT = (
    "Expected is EmotionCoT as its authors ship it: JSON lines with audio_path, emotion and cot_analysis."
)
AGES = {"child": 8.0, "teenager": 16.0, "young adult": 28.0, "middle-aged": 50.0, "elderly": 70.0}
"""A year within each of the authors' age groups, which is all that is known; `extra` holds the group."""
_SOURCES = {
    "iemocap": re.compile(r"(?P<session>Ses\d\d)\w+_(?P<speaker>[FM])\d+$"),
    "msp_podcast": re.compile(r"MSP-PODCAST_\d+"),
    "expresso": re.compile(r"(?P<speaker>ex\d\d)[_-]"),
    "meld": re.compile(r"dia\d+_utt\d+"),
    "ears": re.compile(r"(?P<speaker>p\d{3})\b"),
}
"""The corpus and, where the name tells, the speaker, by a recording's path."""
_LEVELS = ("pitch_level", "energy_level", "speed_level", "intonation", "gender")


def load_emotioncot(root: str | Path, *, audio_root: str | None = None) -> list[Utterance]:
    """Lists the annotated utterances with their traces, in neither split (`split_by_speaker` makes one).

    Args:
        root: the JSON lines, or the folder that holds them.
        audio_root: folder that `audio_path` is relative to; by default that of the JSON lines.

    Raises:
        DataError: no such folder, a line that is no JSON object, or no utterance with a known emotion.
    """
    root = Path(root).expanduser()
    paths = [root] if root.is_file() else sorted(root.glob("*.jsonl"))
    listing = Listing("emotioncot", root.parent if root.is_file() else root, LAYOUT, LABELS)
    folder = Path(audio_root).expanduser() if audio_root else listing.root
    for path in paths:
        for number, row in numbered_rows(path, "an utterance of EmotionCoT"):
            label = str(row.get("emotion"))
            emotion = listing.emotion(normalise_label(label, EMOTIONS) or label)
            path_told = row.get("audio_path")
            if not isinstance(path_told, str) or not Path(path_told).name or "\0" in path_told:
                raise DataError(f"{path}:{number}: no audio_path. {LAYOUT}")
            if emotion is not None:
                listing.utterances.append(_utterance(row, folder, emotion))
    return listing.done()


def _utterance(row: dict[str, Any], folder: Path, emotion: str) -> Utterance:
    path = Path(row["audio_path"])
    dataset, speaker = _source(path.with_suffix("").as_posix())
    stated = {name: str(row.get(name)).lower() for name in _LEVELS}
    group, text, words = (
        str(row.get("age_level")).lower(),
        row.get("transcription"),
        row.get("stressed_words"),
    )
    are_words = isinstance(words, list) and all(isinstance(word, str) for word in words)
    return Utterance(
        id=f"emotioncot-{path.with_suffix('').as_posix()}",
        audio=str((folder / path).resolve()),
        text=text if isinstance(text, str) and text else None,
        emotion=emotion,
        speaker=speaker,
        dataset=dataset,
        age_years=AGES.get(group),
        language="en",
        stressed_words=words if are_words else None,
        trace=_trace(row.get("cot_analysis"), emotion),
        extra={"age_level": group} if group in AGES else None,
        **{name: value for name, value in stated.items() if value in VALUES[name]},  # type: ignore[arg-type]
    )


def _source(path: str) -> tuple[str, str | None]:
    for dataset, pattern in _SOURCES.items():
        if match := pattern.search(path):
            who = "".join(match.groups())
            return dataset, f"{dataset}-{who}" if who else None
    return "emotioncot", None


def _trace(reasoning: object, emotion: str) -> str | None:
    if not isinstance(reasoning, str) or not reasoning.strip():
        return None
    return reasoning if parse_response(reasoning) is not None else format_response(reasoning.strip(), emotion)


CORPUS = Corpus(load=load_emotioncot)
