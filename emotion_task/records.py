"""The manifest: one JSON line per utterance, the form in which every corpus, annotation and trace is kept."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from os.path import expanduser
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from rlcore.errors import ConfigError, DataError
from rlcore.records.files import is_nan, numbered_rows, write_rows

log = logging.getLogger(__name__)

AGE_LEVELS = {"child": 13.0, "young": 40.0, "middle-aged": 60.0, "elderly": float("inf")}
"""Age in years at which each age group ends."""
OLDEST_YEARS = 130
"""Age in years that nobody reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """An utterance is one recording and what is known of it.

    Measured fields are null where they could not be measured.
    """

    id: str
    audio: str
    """Path, relative to the manifest's folder or absolute; `~` is the home folder."""
    video: str | None = None
    """Path of a video that shows the speaker, or of a folder of its frames, two a second, as images; written
    as `audio` is."""
    channel: int | None = None
    """Channel of the recording that the row means, from 1; null where all channels hold the same sound."""
    text: str | None = None
    text_emotion: str | None = None
    """Emotion that the words alone suggest, where the corpus tells; the voice may contradict it."""
    emotion: str | None = None
    speaker: str | None = None
    dataset: str = "manifest"
    split: str | None = None
    """Split of the corpus: `train`, `eval` or null."""
    gender: str | None = None
    """`male` or `female` where the corpus tells, or a classifier is sure of it."""
    age_years: float | None = None
    """Age of the speaker, where the corpus or a classifier tells."""
    language: str | None = None
    """ISO 639-1 code of the words (`en`, `de`), for the speech rate; null where the corpus does not tell."""
    measured: dict[str, Any] | None = None
    """Physical units, written by the measuring pass (emotion_task.prosody.measure.Measurement as a dict)."""
    pitch_level: str | None = None
    """Pitch: low, normal or high, calibrated per corpus and gender."""
    energy_level: str | None = None
    """Loudness: low, normal or high, calibrated per corpus."""
    speed_level: str | None = None
    """Speech rate: slow, normal or fast."""
    intonation: str | None = None
    """Contour: rising, falling, rising-falling, falling-rising, flat, expressive, uncertain or too_short."""
    stressed_words: list[str] | None = None
    trace: str | None = None
    """`<think>...</think><answer>...</answer>` where one was written."""
    extra: dict[str, Any] | None = None
    """What else the corpus tells, by its own name, such as an intensity or ratings of valence; kept, not
    used."""

    @property
    def age_level(self) -> str | None:
        """Age group: child, young, middle-aged or elderly; null where the age is unknown."""
        if self.age_years is None:
            return None
        return next(name for name, below in AGE_LEVELS.items() if self.age_years < below)


_HINTS = get_type_hints(Utterance)


def read_manifest(path: str | Path) -> list[Utterance]:
    """Reads a JSONL manifest; audio paths come back absolute.

    Raises:
        DataError: the file is missing, or a line is not an utterance (the message names file and line).
    """
    return list(iter_manifest(path))


def iter_manifest(path: str | Path) -> Iterator[Utterance]:
    """Yields the utterances of a JSONL manifest as `read_manifest` returns them; raises as it does.

    A row with text that UTF-8 cannot write (`broken_text`) is left out, and the log says which.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such manifest. Make one with `emotion corpus` or `emotion annotate`.")
    known = {f.name for f in fields(Utterance)}
    for number, row in numbered_rows(path, "an utterance"):
        try:
            unknown = set(row) - known
            if unknown:
                raise ValueError(f"unknown fields {sorted(unknown)}; known are {sorted(known)}")
            _check_values(row)
            # Tables write NaN where nothing is known.
            known_values = {name: v for name, v in row.items() if v is not None and not is_nan(v)}
            utterance = Utterance(**known_values)
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}:{number}: not an utterance: {error}") from error
        if (broken := broken_text(utterance)) is not None:
            log.warning("%s:%d: left out: %s", path, number, broken)
            continue
        yield _located(utterance, path.parent)


def _check_values(row: Mapping[str, object]) -> None:
    """Refuses a row without id or audio, and one with a value that is not of its field's type.

    Raises:
        ValueError: says which.
    """
    for name in ("id", "audio"):
        if not row.get(name) or "\0" in str(row[name]):
            raise ValueError(f"{name} is {row.get(name)!r}; it must be text without NUL")
    for name, value in row.items():
        if (mistake := wrong_type(name, value)) is not None:
            raise ValueError(mistake)


def wrong_type(field: str, value: object) -> str | None:
    """Returns why a value is none that a field of `Utterance` may have, or None where it is one."""
    if value is None or is_nan(value):
        return None
    allowed, *_ = get_args(_HINTS[field]) or (_HINTS[field],)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_right, form = {
        str: (isinstance(value, str), "text; write it in quotes"),
        int: (is_number and isinstance(value, int), "whole number"),
        float: (is_number and 0 < value < OLDEST_YEARS, "age in years"),  # type: ignore[operator]
        dict: (isinstance(value, dict), "object"),
        list: (isinstance(value, list) and all(isinstance(v, str) for v in value), "list of texts"),
    }[get_origin(allowed) or allowed]
    return None if is_right else f"{field} {repr(value)[:80]} is no {form}"


def broken_text(utterance: Utterance) -> str | None:
    """Returns the reason why an utterance's text can be neither written nor tokenized, or None where it can.

    JSON may name half of a surrogate pair, and a path may hold bytes that are not UTF-8.
    """
    for name in (field.name for field in fields(Utterance)):
        value = getattr(utterance, name)
        if isinstance(value, dict):
            value = json.dumps(value, ensure_ascii=False)
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and not is_utf8(text):
                return f"not text: {name} {text[:80]!a} holds what UTF-8 cannot write"
    return None


def is_utf8(text: str) -> bool:
    """Tells whether UTF-8 can write a text: halves of surrogate pairs cannot be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _located(utterance: Utterance, folder: Path) -> Utterance:
    """Returns the utterance with absolute paths in the place of those that are relative to the manifest's
    folder."""
    named = {"audio": utterance.audio, "video": utterance.video}
    relative = {name: path for name, path in named.items() if path and not Path(path).is_absolute()}
    found = {name: str((folder / expanduser(path)).resolve()) for name, path in relative.items()}
    return replace(utterance, **found) if found else utterance  # type: ignore[arg-type]


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> int:
    """Replaces a JSONL manifest and returns how many utterances it holds.

    Raises:
        DataError: a folder has the name.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file in it, such as {path / 'manifest.jsonl'}")
    rows = ({k: v for k, v in asdict(utterance).items() if v is not None} for utterance in utterances)
    return write_rows(path, rows)


def shared_by_splits(utterances: Sequence[Utterance]) -> list[str]:
    """Returns a warning for the recordings, and one for the speakers, that are in `train` and in `eval`: a
    model is then evaluated on what it was trained on."""
    found = []
    for what, is_told, key in (
        ("recordings", "audio", lambda u: (str(Path(u.audio).resolve()), u.channel)),
        ("speakers", "speaker", lambda u: (u.speaker, u.dataset)),
    ):
        train, evaluated = (
            {key(u) for u in utterances if u.split == split and getattr(u, is_told) is not None}
            for split in ("train", "eval")
        )
        if shared := sorted(train & evaluated, key=str):
            more = ", ..." if len(shared) > 1 else ""
            found.append(f"{len(shared)} {what} are in train and in eval: {shared[0][0]}{more}")
    return found


def by_speaker(
    utterances: Sequence[Utterance], speakers: Sequence[str], setting: str
) -> tuple[list[Utterance], list[Utterance]]:
    """Splits the utterances into those of `speakers` and the others.

    Raises:
        ConfigError: a speaker who says none of them (names `setting` and those who do).
    """
    known = {utterance.speaker for utterance in utterances if utterance.speaker is not None}
    if unknown := sorted(set(speakers) - known):
        raise ConfigError(f"{setting}: no training utterance is by {unknown}; speakers are {sorted(known)}")
    of_speakers = [utterance for utterance in utterances if utterance.speaker in speakers]
    return of_speakers, [utterance for utterance in utterances if utterance.speaker not in speakers]


def choose(utterances: Sequence[Utterance], limit: int | None) -> list[Utterance]:
    """Chooses at most `limit` utterances (all where None), by a hash of their ids, and keeps their order.

    The choice does not depend on the order of the file, and a larger limit keeps what a smaller one chose.

    Raises:
        ConfigError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit of utterances: got {limit}; allowed is 1 or more (leave it out for all)")
    if limit is None or limit >= len(utterances):
        return list(utterances)
    ranked = sorted(utterances, key=lambda u: hashlib.sha256(u.id.encode()).digest())
    kept = {u.id for u in ranked[:limit]}
    return [u for u in utterances if u.id in kept]
