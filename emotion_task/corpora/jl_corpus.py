"""JL-Corpus (James, Tian and Watson, 2018, Interspeech; four speakers, New Zealand) in its owner's layout.

    root/Raw JL corpus (unchecked and unannotated)/JL(wav+txt)/female1_angry_10a_1.wav

Speaker, emotion, sentence with session, take. A .txt of the same name holds the words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing
from emotion_task.corpora.reading.tables import text_beside
from emotion_task.records import Utterance

LABELS = {
    "angry": "angry",
    "excited": "happy",
    "happy": "happy",
    "neutral": "neutral",
    "sad": "sad",
}
DROPPED = dict.fromkeys(
    ("anxious", "apologetic", "assertive", "concerned", "encouraging"),
    "a secondary emotion, none of the nine",
)
LAYOUT = "Expected is JL-Corpus as its owners ship it: JL(wav+txt)/female1_angry_10a_1.wav and so on."
_NAME = re.compile(r"(?P<speaker>(?P<gender>female|male)\d)_(?P<label>[a-z]+)_\d+[a-z]?_\d")


def load_jl_corpus(root: str | Path, *, eval_speakers: Iterable[str] | None = None) -> list[Utterance]:
    """Lists the recordings of the primary emotions.

    Args:
        eval_speakers: speakers held out; by default female2 and male2.

    Raises:
        DataError: no such folder, nothing of JL-Corpus in it, or words that are no text.
    """
    held_out = HeldOut(eval_speakers, ("female2", "male2"))
    listing = Listing("jl_corpus", Path(root), LAYOUT, LABELS, DROPPED, held_out=held_out)
    for match, path, emotion in listing.recordings(_NAME):
        listing.add(
            path.stem,
            path,
            emotion=emotion,
            speaker=match["speaker"],
            split=held_out.split(match["speaker"]),
            text=text_beside(path.with_suffix(".txt")),
            text_emotion="neutral",
            gender=match["gender"],
        )
    return listing.done()


CORPUS = Corpus(load=load_jl_corpus)
