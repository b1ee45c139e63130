"""MEAD (Wang et al., 2020, ECCV; 48 speakers) in its owner's layout.

    root/M003/audio/angry/level_1/001.m4a      speaker (M, W), emotion, intensity, sentence

The sound is AAC, which libsndfile does not read: `emotion_task.corpora.reading.decode` writes it anew, once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing, audio_files
from emotion_task.records import Utterance

LABELS = {
    "neutral": "neutral",
    "happy": "happy",
    "sad": "sad",
    "angry": "angry",
    "surprised": "surprise",
    "fear": "fear",
    "disgusted": "disgust",
    "contempt": "disgust",
}
EVAL_SPEAKERS = ("M039", "M040", "M041", "M042", "W036", "W037", "W038", "W040")
"""The last four men and women, about a sixth of the speakers: the corpus has no official split."""
LAYOUT = (
    "Expected is MEAD as its owners ship it, with each speaker's audio archive unpacked: "
    "M003/audio/angry/level_1/001.m4a."
)


def load_mead(root: str | Path, *, eval_speakers: Iterable[str] | None = None) -> list[Utterance]:
    """Lists the recordings of every intensity. The owner gives no transcripts by file.

    Args:
        eval_speakers: speakers held out; by default `EVAL_SPEAKERS`.

    Raises:
        DataError: no such folder, or nothing of MEAD in it.
    """
    held_out = HeldOut(eval_speakers, EVAL_SPEAKERS)
    listing = Listing("mead", Path(root), LAYOUT, LABELS, held_out=held_out)
    for folder in sorted(listing.root.glob("[MW][0-9][0-9][0-9]/audio/*/level_[0-9]")):
        speaker, label, level = folder.parts[-4], folder.parts[-2], folder.name.removeprefix("level_")
        for stem, path in audio_files(folder.iterdir()).items():
            if not re.fullmatch(r"\d{3}", stem):
                listing.leave_out("not named as recordings of MEAD are")
            elif (emotion := listing.emotion(label)) is not None:
                listing.add(
                    f"{speaker}-{label}-{level}-{stem}",
                    path,
                    emotion=emotion,
                    speaker=speaker,
                    split=held_out.split(speaker),
                    gender="male" if speaker.startswith("M") else "female",
                )
    return listing.done()


CORPUS = Corpus(load=load_mead)
