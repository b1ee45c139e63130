"""EmoV-DB (Adigwe et al., 2018, arXiv:1806.09514; four speakers) in its owner's layout.

    root/bea_Amused/amused_1-15_0001.wav      (or root/bea/Amused/..., the sorted version)
    root/cmuarctic.data                       the sentences of CMU Arctic, by number: festvox.org/cmu_arctic

Speaker and emotion stand in the folder's name, the sentence's number at the end of the file's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing, audio_files
from emotion_task.corpora.reading.tables import owners_text
from emotion_task.records import Utterance

LABELS = {
    "amused": "happy",
    "angry": "angry",
    "disgust": "disgust",
    "disgusted": "disgust",
    "neutral": "neutral",
}
DROPPED = dict.fromkeys(("sleepy", "sleepiness"), "sleepiness is none of the nine")
GENDERS = {"bea": "female", "jenie": "female", "josh": "male", "sam": "male"}
LAYOUT = (
    "Expected is EmoV-DB as its owners ship it: bea_Amused/amused_1-15_0001.wav or "
    "bea/Amused/amused_1-15_0001.wav, and cmuarctic.data with the words."
)
_FOLDER = re.compile(rf"(?P<speaker>{'|'.join(GENDERS)})[_/](?P<label>[a-z]+)", re.IGNORECASE)
_NAME = re.compile(r"\w+?_[\d-]+_(?P<sentence>\d{4})")
_SENTENCE = re.compile(r'\(\s*arctic_a(?P<number>\d{4})\s+"(?P<text>.*)"\s*\)')


def load_emov_db(root: str | Path, *, eval_speakers: Iterable[str] | None = None) -> list[Utterance]:
    """Lists the recordings, with the words where `cmuarctic.data` lies beside them.

    Args:
        eval_speakers: speakers held out; by default jenie and josh (who was never angry or disgusted).

    Raises:
        DataError: no such folder, nothing of EmoV-DB in it, or sentences that are no text.
    """
    held_out = HeldOut(eval_speakers, ("jenie", "josh"))
    listing = Listing("emov_db", Path(root), LAYOUT, LABELS, DROPPED, held_out=held_out)
    arctic = listing.root / "cmuarctic.data"
    lines = owners_text(arctic).splitlines() if arctic.is_file() else []
    sentences = {match["number"]: match["text"] for match in map(_SENTENCE.match, lines) if match}
    for folder in sorted({path.parent for path in listing.root.rglob("*.wav")}):
        told = _FOLDER.fullmatch(folder.name) or _FOLDER.fullmatch(f"{folder.parent.name}/{folder.name}")
        for stem, path in audio_files(folder.iterdir()).items():
            match = _NAME.fullmatch(stem)
            if told is None or match is None:
                listing.leave_out("not named as recordings of EMOV_DB are")
            elif (emotion := listing.emotion(told["label"].lower())) is not None:
                speaker = told["speaker"].lower()
                listing.add(
                    f"{speaker}-{stem.lower()}",
                    path,
                    emotion=emotion,
                    speaker=speaker,
                    split=held_out.split(speaker),
                    text=sentences.get(match["sentence"]),
                    text_emotion="neutral",
                    gender=GENDERS[speaker],
                )
    return listing.done()


CORPUS = Corpus(load=load_emov_db)
