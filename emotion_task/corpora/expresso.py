"""Expresso (Nguyen et al., 2023, Interspeech; four speakers) in its owner's layout.

    root/audio_48khz/read/ex04/happy/base/ex04_happy_00085.wav
    root/audio_48khz/conversational/ex04-ex01/laughing/ex04-ex01_laughing_001.wav      one speaker a channel
    root/splits/train.txt, dev.txt, test.txt      names, of long files with a range: (,60.0s)
    root/read_transcriptions.txt, root/VAD_segments.txt

Sentences that were read are taken as they are. Conversations and long readings last minutes: their turns are
cut out, by the owner's voice activity, into a folder of yours.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import Listing
from emotion_task.records import Utterance
from rlcore.errors import DataError
from rlcore.records.files import open_text, replaced

log = logging.getLogger(__name__)

_MISSING_S = 0.1
"""Seconds of a turn that may lie behind the end of its recording: the owner's voice activity is rounded."""

LABELS = {
    "default": "neutral",
    "happy": "happy",
    "sad": "sad",
    "angry": "angry",
    "disgusted": "disgust",
    "confused": "confused",
    "whisper": "whisper",
    "fearful": "fear",
}
_MANNERS = ("enunciated", "fast", "projected", "laughing", "narration", "nonverbal", "singing")
_ROLES = ("animal", "animaldir", "child", "childdir")
_NONE_OF_NINE = ("awe", "bored", "calm", "desire", "sarcastic", "sleepy", "sympathetic")
DROPPED = {
    **dict.fromkeys(_MANNERS, "a manner of speaking"),
    **dict.fromkeys(_ROLES, "a role that is played"),
    **dict.fromkeys(_NONE_OF_NINE, "none of the nine"),
}
SPLITS = {"train": "train", "dev": None, "test": "eval"}
LAYOUT = (
    "Expected is Expresso as its owners ship it: audio_48khz/read, audio_48khz/conversational, splits/, "
    "read_transcriptions.txt and VAD_segments.txt."
)
MIN_SECONDS, MAX_SECONDS = 0.5, 15.0
"""Limits of a turn's length; a longer one is cut into pieces."""
_GENDERS = {"ex01": "male", "ex02": "female", "ex03": "male", "ex04": "female"}
_RANGE = re.compile(r"\(\s*([\d.]*)s?\s*,\s*([\d.]*)s?\s*\)")
_LONG = "turn of a conversation or long reading (give cut_to=FOLDER, and they are cut out into it)"


@dataclass(frozen=True, slots=True)
class _Turn:
    channel: int | None
    """Channel 1 or 2, or None in a file of one speaker."""
    start: float
    end: float


def load_expresso(root: str | Path, *, cut_to: str | None = None) -> list[Utterance]:
    """Lists the utterances by the official splits, which share the four speakers.

    Words between asterisks in a transcript are those that the speaker was asked to stress.

    Args:
        cut_to: folder for the turns of conversations and long readings, as FLAC; what lies there already is
            not cut again, unless its recording was replaced. Without it they are left out (angry, disgusted
            and fearful exist only there).

    Raises:
        DataError: no such folder, or one of its lists is missing or malformed.
    """
    listing = Listing("expresso", Path(root), LAYOUT, LABELS, DROPPED)
    texts = dict(_lines(listing.root / "read_transcriptions.txt"))
    turns = _voice_activity(listing.root / "VAD_segments.txt")
    for part, split in SPLITS.items():
        for name, window in _lines(listing.root / "splits" / f"{part}.txt"):
            speakers, styles, path = _place(listing.root, name)
            if name not in turns:
                emotion = listing.emotion(styles[0])
                if emotion is not None:
                    _add_sentence(listing, name, path, emotion, speakers[0], split, texts.get(name))
            elif cut_to is None:
                listing.leave_out(_LONG, len(turns[name]))
            else:
                for turn in _inside(turns[name], _seconds(window)):
                    side = (turn.channel or 1) - 1
                    emotion = listing.emotion(styles[min(side, len(styles) - 1)])
                    if emotion is not None:
                        _add_turn(listing, name, path, emotion, speakers[side], split, turn, Path(cut_to))
    return listing.done()


def _add_sentence(
    listing: Listing, name: str, path: Path, emotion: str, speaker: str, split: str | None, text: str | None
) -> None:
    stressed = re.findall(r"\*([^*]+)\*", text) if text else []
    listing.add(
        name,
        path,
        emotion=emotion,
        speaker=speaker,
        split=split,
        text=text.replace("*", "") if text else None,
        gender=_GENDERS.get(speaker),
        stressed_words=[word for phrase in stressed for word in phrase.split()] or None,
    )


def _add_turn(
    listing: Listing,
    name: str,
    path: Path,
    emotion: str,
    speaker: str,
    split: str | None,
    turn: _Turn,
    cut_to: Path,
) -> None:
    stem = f"{name}-{speaker}-{turn.start:07.2f}"
    audio = cut_to.expanduser() / name / f"{stem}.flac"
    try:
        if not _is_of(audio, path):
            _cut(path, audio, turn)
    except DataError as error:
        log.warning("%s", error)
        listing.leave_out("turn that cannot be cut (the log says why)")
        return
    listing.add(stem, audio, emotion=emotion, speaker=speaker, split=split, gender=_GENDERS.get(speaker))


def _is_of(audio: Path, path: Path) -> bool:
    """Tells whether a turn was cut from this recording as it is now: both have one time of change."""
    if not audio.is_file() or not path.is_file():
        return audio.is_file()
    return audio.stat().st_mtime_ns == path.stat().st_mtime_ns


def _cut(path: Path, audio: Path, turn: _Turn) -> None:
    """Writes one turn, whole or not at all, with the recording's time of change."""
    try:
        with soundfile.SoundFile(path) as file:
            file.seek(round(turn.start * file.samplerate))
            count = round((turn.end - turn.start) * file.samplerate)
            samples, rate = file.read(count, always_2d=True), file.samplerate
        if len(samples) < count - _MISSING_S * rate:
            raise DataError(
                f"truncated: the recording ends {(count - len(samples)) / rate:.2f} s before its turn"
            )
        samples, changed = samples[:, (turn.channel or 1) - 1], path.stat().st_mtime_ns
    except Exception as error:  # the boundary to the file: it must not end the corpus
        raise DataError(f"{path}: no turn can be cut at {turn.start:.2f} s: {error}") from error
    with replaced(audio) as partial:
        soundfile.write(partial, samples, rate, format="FLAC")
        os.utime(partial, ns=(changed, changed))


def _place(root: Path, name: str) -> tuple[list[str], list[str], Path]:
    """Speakers and styles of a recording, by channel, and its file."""
    if "_" not in name:
        raise DataError(f"{root / 'splits'}: {name!r} is no name of a recording (speaker_style_number)")
    speaker, style, *rest = name.split("_")
    if "-" in speaker:
        folder = root / "audio_48khz" / "conversational" / speaker / style
    else:
        kind = "longform" if "longform" in rest else "base"
        folder = root / "audio_48khz" / "read" / speaker / style / kind
    return speaker.split("-"), style.split("-"), folder / f"{name}.wav"


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Returns the first cell of each line and the rest of it, without comments."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. {LAYOUT}")
    with open_text(path) as lines:
        text = lines.read()
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition("\t")
            yield name.strip(), rest.strip()


def _voice_activity(path: Path) -> dict[str, list[_Turn]]:
    turns: dict[str, list[_Turn]] = {}
    for name, ranges in _lines(path):
        name, _, channel = name.partition("/channel")
        for start, end in _RANGE.findall(ranges):
            turn = _Turn(int(channel) if channel else None, float(start), float(end))
            turns.setdefault(name, []).append(turn)
    return turns


def _seconds(window: str) -> tuple[float, float]:
    match = _RANGE.fullmatch(window)
    start, end = match.groups() if match else ("", "")
    return float(start or 0), float(end or "inf")


def _inside(turns: list[_Turn], window: tuple[float, float]) -> Iterator[_Turn]:
    """Returns the parts of the turns that lie in the window, none longer than `MAX_SECONDS`, short ones left
    out."""
    for turn in turns:
        start, end = max(turn.start, window[0]), min(turn.end, window[1])
        while end - start >= MIN_SECONDS:
            yield _Turn(turn.channel, start, min(end, start + MAX_SECONDS))
            start += MAX_SECONDS


CORPUS = Corpus(load=load_expresso)
