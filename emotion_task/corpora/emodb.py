"""EmoDB, the Berlin database (Burkhardt et al., 2005, Interspeech; ten actors, German) in its owner's layout.

root/wav/03a01Fa.wav      speaker, text, emotion (the German word's letter), version
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing, audio_files
from emotion_task.records import Utterance

LABELS = {
    "W": "angry",
    "E": "disgust",
    "A": "fear",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}
DROPPED = {"L": "boredom is none of the nine"}
SPEAKERS = {
    "03": ("male", 31),
    "08": ("female", 34),
    "09": ("female", 21),
    "10": ("male", 32),
    "11": ("male", 26),
    "12": ("male", 30),
    "13": ("female", 32),
    "14": ("female", 35),
    "15": ("male", 25),
    "16": ("female", 31),
}
"""Gender and age in years by the speaker's number."""
TEXTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
LAYOUT = "Expected is EmoDB as its owners ship it: wav/03a01Fa.wav and so on."
_NAME = re.compile(r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<label>[A-Z])(?P<version>[a-z]?)")


def load_emodb(root: str | Path, *, eval_speakers: Iterable[str | int] | None = None) -> list[Utterance]:
    """Lists the recordings, with the German texts that were read.

    Args:
        eval_speakers: numbers of the speakers held out; by default a man and a woman.

    Raises:
        DataError: no such folder, or nothing of EmoDB in it.
    """
    held_out = HeldOut(eval_speakers, ("15", "16"))
    listing = Listing("emodb", Path(root), LAYOUT, LABELS, DROPPED, language="de", held_out=held_out)
    for stem, path in audio_files(listing.root.rglob("*.wav")).items():
        match = _NAME.fullmatch(stem)
        if match is None or match["speaker"] not in SPEAKERS:
            listing.leave_out("not named as recordings of EmoDB are")
        elif (emotion := listing.emotion(match["label"])) is not None:
            gender, years = SPEAKERS[match["speaker"]]
            listing.add(
                stem,
                path,
                emotion=emotion,
                speaker=match["speaker"],
                split=held_out.split(match["speaker"]),
                text=TEXTS.get(match["text"]),
                text_emotion="neutral",
                gender=gender,
                age_years=float(years),
            )
    return listing.done()


CORPUS = Corpus(load=load_emodb)
