"""IEMOCAP (Busso et al., 2008, Language Resources and Evaluation 42) in its owner's layout.

    root/Session1/dialog/EmoEvaluation/Ses01F_impro01.txt      labels of a dialogue's turns
    root/Session1/dialog/transcriptions/Ses01F_impro01.txt
    root/Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav

A turn's last letter names who speaks: Ses01F_impro01_M003 is the man of session 1. The letter before the
first underscore says only who wore the motion capture markers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing
from emotion_task.corpora.reading.tables import owners_text
from emotion_task.records import Utterance

LABELS = {
    "neu": "neutral",
    "hap": "happy",
    "exc": "happy",
    "sad": "sad",
    "ang": "angry",
    "sur": "surprise",
    "fea": "fear",
    "dis": "disgust",
}
DROPPED = {
    "fru": "frustration is none of the nine, and is not anger",
    "oth": "other",
    "xxx": "the annotators did not agree",
}
LAYOUT = (
    "Expected is IEMOCAP_full_release as its owners ship it: Session1 to Session5, each with "
    "dialog/EmoEvaluation, dialog/transcriptions and sentences/wav."
)
_TURN = re.compile(
    r"\[[\d.]+ - [\d.]+\]\s+(?P<turn>(?P<dialogue>Ses\d\d\w+)_(?P<who>[FM])\w*)\s+(?P<label>\w+)"
    r"(?:\s+\[(?P<ratings>[\d., ]+)\])?"
)
_STAGE_DIRECTION = re.compile(r"\s*\[[A-Z ]+\]\s*")
"""[LAUGHTER], [BREATHING]: not spoken, so neither counted in syllables nor quoted."""
_LINE = re.compile(r"(?P<turn>Ses\d\d\w+)\s+\[[\d.\s-]+\]:\s*(?P<text>.*)")


def load_iemocap(root: str | Path, *, eval_sessions: Iterable[int] | None = None) -> list[Utterance]:
    """Lists the labelled turns. Sessions share no speaker, so splits by session are speaker-disjoint.

    `extra` holds the mean ratings, 1 to 5.

    Args:
        eval_sessions: sessions held out; by default the fifth.

    Raises:
        DataError: no such folder, or no labelled turn in it.
        ConfigError: `eval_sessions` is no list, or one of them is not there.
    """
    held_out = HeldOut(eval_sessions, (5,), "eval_sessions")
    listing = Listing("iemocap", Path(root), LAYOUT, LABELS, DROPPED, held_out=held_out)
    for session in sorted(listing.root.glob("Session[1-5]")):
        texts = _transcripts(session / "dialog" / "transcriptions")
        split = held_out.split(session.name[-1])
        for path in _text_files(session / "dialog" / "EmoEvaluation"):
            for match in _TURN.finditer(owners_text(path)):
                emotion = listing.emotion(match["label"])
                if emotion is None:
                    continue
                turn = match["turn"]
                listing.add(
                    turn,
                    session / "sentences" / "wav" / match["dialogue"] / f"{turn}.wav",
                    emotion=emotion,
                    speaker=f"{turn[:5]}{match['who']}",
                    split=split,
                    text=texts.get(turn),
                    gender="female" if match["who"] == "F" else "male",
                    extra=_dimensions(match["ratings"]),
                )
    return listing.done()


def _dimensions(ratings: str | None) -> dict[str, float]:
    try:
        means = [float(mean) for mean in (ratings or "").split(",")]
    except ValueError:
        return {}
    return dict(zip(("valence", "activation", "dominance"), means, strict=False))


def _text_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.txt") if not path.name.startswith("."))


def _transcripts(folder: Path) -> dict[str, str]:
    return {
        match["turn"]: _STAGE_DIRECTION.sub(" ", match["text"]).strip()
        for path in _text_files(folder)
        for match in map(_LINE.match, owners_text(path).splitlines())
        if match
    }


CORPUS = Corpus(load=load_iemocap)
