"""MSP-IMPROV (Busso et al., 2017, IEEE Trans. Affective Computing 8(1)) in its owner's layout.

    root/Evalution.txt      UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:3.000000; V:3.500000; D:3.0 ; N:4.0;
    root/Audio/session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav

Sentence with its target emotion, speaker, kind of scene, turn. A .txt of the same name holds the words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing, audio_files
from emotion_task.corpora.reading.tables import owners_text, text_beside
from emotion_task.records import Utterance
from rlcore.errors import DataError

LABELS = {
    "A": "angry",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
}
DROPPED = {"O": "other", "X": "the annotators did not agree"}
DIMENSIONS = {"A": "activation", "V": "valence", "D": "dominance", "N": "naturalness"}
LAYOUT = (
    "Expected is MSP-IMPROV as its owners ship it: Evalution.txt, and "
    "session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav and so on."
)
_LABELLED = re.compile(
    r"(?:UTD|MSP)-IMPROV-(?P<turn>S\d\d[A-Z]-(?P<speaker>(?P<gender>[FM])0(?P<session>\d))-[A-Z]-\w+)\.(?:avi|wav)"
    r"\s*;\s*(?P<label>[A-Z])\s*;(?P<ratings>.*)"
)
_RATING = re.compile(r"(?P<name>[AVDN]):(?P<mean>\d+(?:\.\d+)?|NaN)")


def load_msp_improv(root: str | Path, *, eval_sessions: Iterable[int] | None = None) -> list[Utterance]:
    """Lists the turns by what most annotators heard; `extra` holds the mean ratings, 1 to 5.

    Args:
        eval_sessions: sessions held out, of two speakers each; by default the sixth.

    Raises:
        DataError: no such folder, no `Evalution.txt`, or none of its turns has a recording.
    """
    held_out = HeldOut(eval_sessions, (6,), "eval_sessions")
    listing = Listing("msp_improv", Path(root), LAYOUT, LABELS, DROPPED, held_out=held_out)
    evaluations = sorted(listing.root.rglob("Eval*ution.txt"))
    if not evaluations:
        raise DataError(f"{listing.root}: no Evalution.txt below it. {LAYOUT}")
    recordings = audio_files(listing.root.rglob("MSP-IMPROV-*"))
    words = {path.stem: path for path in listing.root.rglob("MSP-IMPROV-*.txt")}
    for match in filter(None, map(_LABELLED.match, owners_text(evaluations[0]).splitlines())):
        stem = f"MSP-IMPROV-{match['turn']}"
        if stem not in recordings:
            listing.leave_out("listed without a recording")
        elif (emotion := listing.emotion(match["label"])) is not None:
            ratings = {DIMENSIONS[r["name"]]: float(r["mean"]) for r in _RATING.finditer(match["ratings"])}
            listing.add(
                match["turn"],
                recordings[stem],
                emotion=emotion,
                speaker=match["speaker"],
                split=held_out.split(match["session"]),
                text=text_beside(words[stem]) if stem in words else None,
                gender="female" if match["gender"] == "F" else "male",
                extra=ratings,
            )
    return listing.done()


CORPUS = Corpus(load=load_msp_improv)
