"""SUBESCO (Sultana et al., 2021, PLoS ONE 16(4): e0250173; twenty actors, Bangla) in its owner's layout.

root/F_01_OISHI_S_1_ANGRY_1.wav      gender, number and name of the speaker, sentence, emotion, take
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing
from emotion_task.records import Utterance

LABELS = {
    "ANGRY": "angry",
    "DISGUST": "disgust",
    "FEAR": "fear",
    "HAPPY": "happy",
    "NEUTRAL": "neutral",
    "SAD": "sad",
    "SURPRISE": "surprise",
}
LAYOUT = "Expected is SUBESCO as its owners ship it: F_01_OISHI_S_1_ANGRY_1.wav and so on."
_NAME = re.compile(
    r"(?P<speaker>(?P<gender>[FM])_\d\d)_[A-Z]+_S_(?P<sentence>\d+)_(?P<label>[A-Z]+)_(?P<take>\d)\]?"
)
"""One file of the release has a bracket too many: F_02_MONIKA_S_2_SURPRISE_3].wav."""


def load_subesco(root: str | Path, *, eval_speakers: Iterable[str] | None = None) -> list[Utterance]:
    """Lists the recordings. The ten sentences stand in the paper alone; `extra` holds their numbers.

    Args:
        eval_speakers: speakers held out, such as F_01; by default F_09, F_10, M_09 and M_10.

    Raises:
        DataError: no such folder, or nothing of SUBESCO in it.
    """
    held_out = HeldOut(eval_speakers, ("F_09", "F_10", "M_09", "M_10"))
    listing = Listing("subesco", Path(root), LAYOUT, LABELS, language="bn", held_out=held_out)
    for match, path, emotion in listing.recordings(_NAME):
        listing.add(
            path.stem.removesuffix("]"),
            path,
            emotion=emotion,
            speaker=match["speaker"],
            split=held_out.split(match["speaker"]),
            text_emotion="neutral",
            gender="female" if match["gender"] == "F" else "male",
            extra={"sentence": int(match["sentence"])},
        )
    return listing.done()


CORPUS = Corpus(load=load_subesco)
