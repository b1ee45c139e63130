"""CREMA-D (Cao et al., 2014, IEEE Trans. Affective Computing 5(4)) in its owner's layout.

    root/AudioWAV/1001_DFA_ANG_XX.wav      actor, sentence, emotion, intensity
    root/VideoDemographics.csv             ActorID,Age,Sex,Race,Ethnicity

The same recordings lie in AudioMP3 at a higher rate; of two with one name the .mp3 is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing
from emotion_task.corpora.reading.tables import require_columns
from emotion_task.records import OLDEST_YEARS, Utterance
from rlcore.inputs.tables import csv_rows
from rlcore.records.files import open_text

LABELS = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
SENTENCES = {
    "DFA": "Don't forget a jacket.",
    "IEO": "It's eleven o'clock.",
    "IOM": "I'm on my way to the meeting.",
    "ITH": "I think I have a doctor's appointment.",
    "ITS": "I think I've seen this before.",
    "IWL": "I would like a new alarm clock.",
    "IWW": "I wonder what this is about.",
    "MTI": "Maybe tomorrow it will be cold.",
    "TAI": "The airplane is almost full.",
    "TIE": "That is exactly what happened.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
INTENSITIES = {"LO": "low", "MD": "medium", "HI": "high"}
EVAL_SPEAKERS = range(1077, 1092)
"""The last fifteen of the 91 actors: the corpus has no official split."""
LAYOUT = (
    "Expected is CREMA-D as its owners ship it: AudioWAV/1001_DFA_ANG_XX.wav and so on, and "
    "VideoDemographics.csv, which tells gender and age."
)
_NAME = re.compile(
    rf"(?P<actor>\d{{4}})_(?P<sentence>{'|'.join(SENTENCES)})_(?P<label>[A-Z]{{3}})_(?P<intensity>LO|MD|HI|XX?)"
)


def load_crema_d(root: str | Path, *, eval_speakers: Iterable[str | int] | None = None) -> list[Utterance]:
    """Lists the recordings by the emotion that was asked for; `extra` holds the intensity.

    Args:
        eval_speakers: numbers of the actors held out; by default `EVAL_SPEAKERS`.

    Raises:
        DataError: no such folder, nothing of CREMA-D in it, or a list of actors that is no proper CSV.
    """
    held_out = HeldOut(eval_speakers, EVAL_SPEAKERS)
    listing = Listing("crema_d", Path(root), LAYOUT, LABELS, held_out=held_out)
    actors = _actors(listing.root / "VideoDemographics.csv")
    for match, path, emotion in listing.recordings(_NAME):
        actor = actors.get(match["actor"], {"Sex": "", "Age": ""})
        listing.add(
            path.stem,
            path,
            emotion=emotion,
            speaker=match["actor"],
            split=held_out.split(match["actor"]),
            text=SENTENCES[match["sentence"]],
            text_emotion="neutral",
            gender={"Male": "male", "Female": "female"}.get(actor["Sex"]),
            age_years=_age(actor["Age"]),
            extra={"intensity": INTENSITIES.get(match["intensity"])},
        )
    return listing.done()


def _age(cell: str) -> float | None:
    years = float(cell) if cell.isdecimal() else 0.0
    return years if 0 < years < OLDEST_YEARS else None


def _actors(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with open_text(path, newline="") as lines:
        rows = csv_rows(path, lines, require_columns(path, {"ActorID", "Age", "Sex"}))
        return {row["ActorID"]: row for _, row in rows}


CORPUS = Corpus(load=load_crema_d)
