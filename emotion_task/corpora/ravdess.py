"""RAVDESS (Livingstone and Russo, 2018, PLoS ONE 13(5): e0196391) in its owner's layout.

    root/Actor_01/03-01-05-02-01-01-01.wav      (or root/Audio_Speech_Actors_01-24/Actor_01/...)

Seven fields: modality-channel-emotion-intensity-statement-repetition-actor. Odd actors are men.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import soundfile

from emotion_task.records import Utterance
from rlcore.errors import DataError

log = logging.getLogger(__name__)

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
_VIDEO_ONLY, _SONG = "02", "02"
_SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats()} | {".aif", ".opus"}


def load_ravdess(
    root: str | Path,
    *,
    train_speakers: Iterable[int] = range(1, 13),
    eval_speakers: Iterable[int] = range(13, 17),
) -> list[Utterance]:
    """Lists the spoken utterances of the speakers in either split, sorted by name.

    Song, video and speakers outside both splits are left out, and the log says how many.

    Raises:
        DataError: no such folder, nothing of RAVDESS in it, or a speaker in both splits.
    """
    root = Path(root).expanduser()
    splits = _splits(train_speakers, eval_speakers)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. {_LAYOUT}")
    utterances, skipped = [], Counter[str]()
    for path in sorted(root.rglob("*"), key=lambda path: path.name):
        name = _NAME.fullmatch(path.stem)
        if name is None or not path.is_file():
            continue
        modality, channel, emotion, _, statement, _, actor = name.groups()
        if path.suffix.lower() not in _SUFFIXES or modality == _VIDEO_ONLY:
            skipped["video"] += 1
        elif channel == _SONG:
            skipped["song"] += 1
        elif emotion not in EMOTIONS or statement not in STATEMENTS:
            skipped["unknown emotion or statement"] += 1
        elif int(actor) not in splits:
            skipped["speaker in neither split"] += 1
        else:
            utterances.append(
                Utterance(
                    id=f"ravdess-{path.stem}",
                    audio=str(path.resolve()),
                    text=STATEMENTS[statement],
                    text_emotion="neutral",
                    emotion=EMOTIONS[emotion],
                    speaker=f"ravdess-{actor}",
                    dataset="ravdess",
                    split=splits[int(actor)],
                    gender="male" if int(actor) % 2 else "female",
                )
            )
    if not utterances:
        raise DataError(
            f"{root}: no RAVDESS speech of speakers {sorted(splits)} (left out: {dict(skipped)}). {_LAYOUT}"
        )
    if skipped:
        log.info("%s: left out %s", root, ", ".join(f"{count} {what}" for what, count in skipped.items()))
    return utterances


_LAYOUT = (
    "Expected is the corpus as its owners ship it: Actor_01 to Actor_24 with files such as "
    "03-01-05-02-01-01-01.wav (any audio suffix). Unpack Audio_Speech_Actors_01-24.zip there, or set "
    "RAVDESS_ROOT to where it lies."
)


def _splits(train_speakers: Iterable[int], eval_speakers: Iterable[int]) -> dict[int, str]:
    train, held_out = set(train_speakers), set(eval_speakers)
    if train & held_out:
        raise DataError(f"RAVDESS speakers {sorted(train & held_out)} are in both train_ and eval_speakers")
    return {speaker: "train" for speaker in train} | {speaker: "eval" for speaker in held_out}
