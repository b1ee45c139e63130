"""TESS (Dupuis and Pichora-Fuller, 2010, University of Toronto; two women) in its owner's layout.

root/OAF_angry/OAF_back_angry.wav      speaker, the word of "Say the word ...", emotion
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing
from emotion_task.records import Utterance

LABELS = {
    "angry": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happy",
    "neutral": "neutral",
    "ps": "surprise",
    "sad": "sad",
}
AGES = {"OAF": 64.0, "YAF": 26.0}
"""Age in years by speaker: older and younger adult female."""
LAYOUT = "Expected is TESS as its owners ship it: OAF_angry/OAF_back_angry.wav and so on (speakers OAF, YAF)."
_NAME = re.compile(r"(?P<speaker>OA|YA)F?_(?P<word>[A-Za-z-]+)_(?P<label>[a-z]+)")
"""One file of the release lacks the F: OA_bite_neutral.wav."""


def load_tess(root: str | Path, *, eval_speakers: Iterable[str] | None = None) -> list[Utterance]:
    """Lists the recordings with the words that were read.

    Args:
        eval_speakers: speakers held out; by default YAF.

    Raises:
        DataError: no such folder, or nothing of TESS in it.
    """
    held_out = HeldOut(eval_speakers, ("YAF",))
    listing = Listing("tess", Path(root), LAYOUT, LABELS, held_out=held_out)
    for match, path, emotion in listing.recordings(_NAME):
        speaker = match["speaker"] + "F"
        listing.add(
            path.stem,
            path,
            emotion=emotion,
            speaker=speaker,
            split=held_out.split(speaker),
            text=f"Say the word {match['word']}.",
            text_emotion="neutral",
            gender="female",
            age_years=AGES[speaker],
        )
    return listing.done()


CORPUS = Corpus(load=load_tess)
