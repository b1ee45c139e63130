"""RAVDESS (Livingstone and Russo, 2018, PLoS ONE 13(5): e0196391) in its owner's layout.

    root/Actor_01/03-01-05-02-01-01-01.wav      (or root/Audio_Speech_Actors_01-24/Actor_01/...)

Seven fields: modality-channel-emotion-intensity-statement-repetition-actor. Odd actors are men.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import READABLE, Listing
from emotion_task.records import Utterance
from rlcore.errors import ConfigError, DataError

LABELS = {
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
LAYOUT = (
    "Expected is the corpus as its owners ship it: Actor_01 to Actor_24 with files such as "
    "03-01-05-02-01-01-01.wav (any audio suffix). Unpack Audio_Speech_Actors_01-24.zip there, or set "
    "RAVDESS_ROOT to where it lies."
)
_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
_VIDEO_ONLY, _SONG = "02", "02"


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
    splits = _splits(train_speakers, eval_speakers)
    listing = Listing("ravdess", Path(root), LAYOUT, LABELS)
    for path in sorted(listing.root.rglob("*"), key=lambda path: path.name):
        name = _NAME.fullmatch(path.stem)
        if name is None or not path.is_file():
            continue
        modality, channel, label, _, statement, _, actor = name.groups()
        if path.suffix.lower() not in READABLE or modality == _VIDEO_ONLY:
            listing.leave_out("video")
        elif channel == _SONG:
            listing.leave_out("song")
        elif statement not in STATEMENTS:
            listing.leave_out("unknown statement")
        elif int(actor) not in splits:
            listing.leave_out("speaker in neither split")
        elif (emotion := listing.emotion(label)) is not None:
            listing.add(
                path.stem,
                path,
                emotion=emotion,
                speaker=actor,
                split=splits[int(actor)],
                text=STATEMENTS[statement],
                text_emotion="neutral",
                gender="male" if int(actor) % 2 else "female",
            )
    return listing.done()


def _splits(train_speakers: Iterable[int], eval_speakers: Iterable[int]) -> dict[int, str]:
    try:  # YAML reads 07 as a number and 08 as text.
        train, held_out = ({int(s) for s in speakers} for speakers in (train_speakers, eval_speakers))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"train_speakers, eval_speakers: got {train_speakers!r} and {eval_speakers!r}; each is a list of "
            "RAVDESS's numbers, 1 to 24"
        ) from error
    if train & held_out:
        raise DataError(f"RAVDESS speakers {sorted(train & held_out)} are in both train_ and eval_speakers")
    return {speaker: "train" for speaker in train} | {speaker: "eval" for speaker in held_out}


CORPUS = Corpus(load=load_ravdess)
