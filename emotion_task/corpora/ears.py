"""EARS (Richter et al., 2024, Interspeech; 107 speakers in an anechoic chamber) in its owner's layout.

root/p001/emo_anger_sentences.wav, emo_anger_freeform.wav, rainbow_01_whisper.wav, ...
root/speaker_statistics.json, root/transcripts.json      from the repository of the corpus, where present
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing, audio_files
from emotion_task.records import Utterance
from rlcore.errors import DataError

LABELS = {
    "neutral": "neutral",
    "amusement": "happy",
    "extasy": "happy",
    "sadness": "sad",
    "anger": "angry",
    "disgust": "disgust",
    "confusion": "confused",
    "fear": "fear",
    "whisper": "whisper",
}
"""Labels of the emo_ tasks, and the reading style `whisper`."""
_NONE_OF_NINE = (
    *("adoration", "amazement", "contentment", "cuteness", "desire", "disappointment", "distress"),
    *("embarassment", "guilt", "interest", "pain", "pride", "realization", "relief", "serenity"),
)
_STYLES = ("regular", "loud", "highpitch", "lowpitch", "fast", "slow")
DROPPED = {
    **dict.fromkeys(_NONE_OF_NINE, "none of the nine"),
    **dict.fromkeys(_STYLES, "a way of reading, no emotion was asked for"),
}
_REST = "freeform talk, interjections, melodies and sounds, without an emotion"
EVAL_SPEAKERS = ("p102", "p103", "p104", "p105", "p106", "p107")
"""The paper's test speakers."""
VALIDATION = ("p100", "p101")
"""The paper's validation speakers: in neither split, unless speakers are named."""
LAYOUT = (
    "Expected is EARS as its owners ship it: p001 to p107 with files such as emo_anger_sentences.wav, and "
    "beside them speaker_statistics.json and transcripts.json of its repository."
)
_NAME = re.compile(r"emo_(?P<emotion>\w+)_(?:freeform|sentences)|(?:rainbow|sentences)_\d+_(?P<style>\w+)")


def load_ears(root: str | Path, *, eval_speakers: Iterable[str] | None = None) -> list[Utterance]:
    """Lists the emotional and whispered tasks, with the texts that were read, gender and age.

    Args:
        eval_speakers: speakers held out; by default the paper's test speakers.

    Raises:
        DataError: no such folder, nothing of EARS in it, or an unreadable JSON file.
    """
    held_out = HeldOut(eval_speakers, EVAL_SPEAKERS)
    listing = Listing("ears", Path(root), LAYOUT, LABELS, DROPPED, held_out=held_out)
    texts, people = (_read(listing.root / f"{n}.json") for n in ("transcripts", "speaker_statistics"))
    for folder in sorted(listing.root.glob("p[0-9][0-9][0-9]")):
        speaker, person = folder.name, people.get(folder.name, {})
        is_left_out = speaker in VALIDATION and not held_out.are_asked_for
        split = held_out.split(speaker)
        for stem, path in audio_files(folder.iterdir()).items():
            match = _NAME.fullmatch(stem)
            if match is None:
                listing.leave_out(_REST)
            elif (emotion := listing.emotion(match["emotion"] or match["style"])) is not None:
                listing.add(
                    f"{speaker}-{stem}",
                    path,
                    emotion=emotion,
                    speaker=speaker,
                    split=None if is_left_out else split,
                    text=texts.get(stem),
                    gender=person["gender"] if person.get("gender") in ("male", "female") else None,
                    age_years=_middle(person.get("age", "")),
                )
    return listing.done()


def _middle(ages: str) -> float | None:
    """Returns the middle of a range such as 36-45: the owner tells no more."""
    bounds = [int(bound) for bound in re.findall(r"\d+", ages)]
    return sum(bounds) / len(bounds) if bounds else None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error


CORPUS = Corpus(load=load_ears)
