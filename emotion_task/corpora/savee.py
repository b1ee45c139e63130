"""SAVEE (Haq and Jackson, University of Surrey; four men) in its owner's layout.

root/AudioData/DC/a01.wav        speaker, then emotion and number of the sentence
root/ALL/DC_a01.wav              the same, as it is often passed on
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing, audio_files
from emotion_task.records import Utterance

LABELS = {
    "a": "angry",
    "d": "disgust",
    "f": "fear",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprise",
}
AGE_YEARS = 29.0
"""The middle of 27 to 31, which is all that is known of the four."""
SPEAKERS = ("DC", "JE", "JK", "KL")
LAYOUT = "Expected is SAVEE as its owners ship it: AudioData/DC/a01.wav (speakers DC, JE, JK, KL)."
_NAME = re.compile(rf"(?:(?P<speaker>{'|'.join(SPEAKERS)})_)?(?P<label>sa|su|[adfhn])(?P<number>\d\d)")


def load_savee(root: str | Path, *, eval_speakers: Iterable[str] | None = None) -> list[Utterance]:
    """Lists the recordings. The owner gives no transcripts.

    Args:
        eval_speakers: speakers held out; by default KL.

    Raises:
        DataError: no such folder, or nothing of SAVEE in it.
    """
    held_out = HeldOut(eval_speakers, ("KL",))
    listing = Listing("savee", Path(root), LAYOUT, LABELS, held_out=held_out)
    for folder in sorted({path.parent for path in listing.root.rglob("*.wav")}):
        for stem, path in audio_files(folder.iterdir()).items():
            match = _NAME.fullmatch(stem)
            speaker = (match["speaker"] or folder.name) if match else None
            if match is None or speaker not in SPEAKERS:
                listing.leave_out("not named as recordings of SAVEE are")
            elif (emotion := listing.emotion(match["label"])) is not None:
                listing.add(
                    f"{speaker}-{match['label']}{match['number']}",
                    path,
                    emotion=emotion,
                    speaker=speaker,
                    split=held_out.split(speaker),
                    gender="male",
                    age_years=AGE_YEARS,
                )
    return listing.done()


CORPUS = Corpus(load=load_savee)
