"""ESD (Zhou et al., 2022, Speech Communication 137; ten speakers of Mandarin, ten of English) in its owner's
layout.

    root/0011/Angry/0011_000351.wav      (or root/0011/Angry/train/..., the first release)
    root/0011/0011.txt                   name, words and emotion, between tabs

The official parts share their speakers, so the split here is by speaker.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing
from emotion_task.records import Utterance
from rlcore.errors import DataError

LABELS = {
    "Angry": "angry",
    "Happy": "happy",
    "Neutral": "neutral",
    "Sad": "sad",
    "Surprise": "surprise",
}
MEN = frozenset((4, 5, 6, 8, 10, 11, 12, 13, 14, 20))
"""Numbers of the men, by the owner's ReadMe.txt; the others are women."""
LAYOUT = "Expected is ESD as its owners ship it: 0011/Angry/0011_000351.wav and 0011/0011.txt and so on."
_NAME = re.compile(r"(?P<speaker>00[01]\d|0020)_\d{6}")


def load_esd(root: str | Path, *, eval_speakers: Iterable[str | int] | None = None) -> list[Utterance]:
    """Lists the recordings in both languages.

    Args:
        eval_speakers: numbers of the speakers held out; by default a woman and a man of each language.

    Raises:
        DataError: no such folder, nothing of ESD in it, or transcripts that are no text.
    """
    held_out = HeldOut(eval_speakers, ("0009", "0010", "0019", "0020"))
    listing = Listing("esd", Path(root), LAYOUT, LABELS, held_out=held_out)
    transcripts = cache(_transcripts)
    for path in sorted(listing.root.rglob("*.wav"), key=lambda path: path.stem):
        match = _NAME.fullmatch(path.stem)
        at = next((n for n, part in enumerate(path.parts[:-1]) if match and part == match["speaker"]), None)
        if match is None or at is None:
            listing.leave_out("not named as recordings of ESD are")
        elif (emotion := listing.emotion(path.parts[at + 1])) is not None:
            speaker, number = match["speaker"], int(match["speaker"])
            listing.add(
                path.stem,
                path,
                emotion=emotion,
                speaker=speaker,
                split=held_out.split(speaker),
                text=transcripts(Path(*path.parts[: at + 1]) / f"{speaker}.txt").get(path.stem),
                text_emotion="neutral",
                gender="male" if number in MEN else "female",
                language="zh" if number <= 10 else "en",
            )
    return listing.done()


def _transcripts(path: Path) -> dict[str, str]:
    """Returns the words by recording. A line that lacks a tab tells none."""
    if not path.is_file():
        return {}
    rows = (line.split("\t") for line in _decoded(path).splitlines())
    return {row[0].strip(): row[1].strip() for row in rows if len(row) == 3}


def _decoded(path: Path) -> str:
    """Reads a transcript: the owner's are in UTF-8, in UTF-16, and in a code page of Windows."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings: tuple[str, ...] = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "gb18030" if int(path.stem) <= 10 else "cp1252")
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataError(f"{path}: text in none of {encodings}; is the file damaged? Save it as UTF-8")


CORPUS = Corpus(load=load_esd)
