"""The walk of every reader of a corpus: keep, leave out with a count, say so."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

from emotion_task.records import Utterance
from rlcore.errors import ConfigError, DataError
from rlcore.records.files import is_nan

log = logging.getLogger(__name__)

READABLE = {f".{name.lower()}" for name in soundfile.available_formats()} | {".aif", ".opus"}
"""Suffixes that libsndfile reads."""
CONTAINERS = {".m4a", ".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mov", ".aac", ".wma"}
"""Suffixes that hold sound and need FFmpeg; `emotion_task.corpora.reading.decode` writes them anew."""


@dataclass
class Listing:
    """A listing collects the utterances of one corpus, and counts what is left out.

    Raises:
        DataError: `root` is no folder.
    """

    name: str
    """Name of the corpus: prefix of ids and speakers, and `Utterance.dataset`."""
    root: Path
    layout: str
    """One or two sentences on what the owner ships, for errors."""
    labels: Mapping[str, str]
    """Labels of `emotion_task.labels` by the owner's label."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Reasons for which labels of the owner are left out, by label."""
    language: str = "en"
    held_out: HeldOut | None = None
    """Speakers (sessions, sets) to hold out, where the reader is told by name."""
    utterances: list[Utterance] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.root = Path(self.root).expanduser()
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder. {self.layout}")

    def emotion(self, label: str) -> str | None:
        """Returns the owner's label in our terms. Counts it and returns None where it is left out."""
        if label in self.labels:
            return self.labels[label]
        self.leave_out(f"{label} ({self.dropped.get(label, 'a label that is not in the table')})")
        return None

    def recordings(self, name: re.Pattern[str]) -> Iterator[tuple[re.Match[str], Path, str]]:
        """Yields the recordings below `root` whose names, without suffix, are as `name` tells.

        Each comes with the match, its path and the emotion of the group `label`. The others are left out.
        """
        for stem, path in audio_files(self.root.rglob("*")).items():
            match = name.fullmatch(stem)
            if match is None:
                self.leave_out(f"not named as recordings of {self.name.upper()} are")
            elif (emotion := self.emotion(match["label"])) is not None:
                yield match, path, emotion

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Counts what is left out, by reason."""
        self.left_out[reason] += count

    def add(
        self,
        id: str,
        audio: Path,
        *,
        channel: int | None = None,
        emotion: str,
        speaker: str | None,
        split: str | None,
        text: str | None = None,
        text_emotion: str | None = None,
        gender: str | None = None,
        age_years: float | None = None,
        stressed_words: list[str] | None = None,
        language: str | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Keeps an utterance; `id` and `speaker` get the corpus' name in front.

        Args:
            channel: of the recording, from 1, where its channels differ, such as one speaker each.
            language: of this recording, where the corpus has several.
            extra: what else the owner tells; what is None or NaN is not known, and is not kept.
        """
        known = {name: value for name, value in (extra or {}).items() if not (value is None or is_nan(value))}
        self.utterances.append(
            Utterance(
                id=f"{self.name}-{id}",
                audio=str(audio.resolve()),
                channel=channel,
                text=text or None,
                text_emotion=text_emotion,
                emotion=emotion,
                speaker=f"{self.name}-{speaker}" if speaker else None,
                dataset=self.name,
                split=split,
                gender=gender,
                age_years=age_years,
                language=language or self.language,
                stressed_words=stressed_words,
                extra=known or None,
            )
        )

    def done(self) -> list[Utterance]:
        """Returns the utterances, each id once. The log says what was left out and why, and warns where a
        split stayed empty.

        Raises:
            DataError: there are none.
            ConfigError: one is to be held out that is not among them.
        """
        unique = {u.id: u for u in reversed(self.utterances)}  # of two with one id the first
        if twice := len(self.utterances) - len(unique):
            self.leave_out("listed twice", twice)
            self.utterances = list(reversed(unique.values()))
        left_out = ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common())
        if not self.utterances:
            what = f"no {self.name.upper()} speech (left out: {left_out or 'nothing'})"
            raise DataError(f"{self.root}: {what}. {self.layout}")
        if self.held_out is not None:
            self.held_out.check()
        splits = Counter(utterance.split for utterance in self.utterances)
        log.info("%s: %d utterances of %s", self.root, len(self.utterances), self.name)
        if left_out:
            log.info("%s: left out %s", self.root, left_out)
        for split in ("train", "eval"):
            if not splits[split]:
                log.warning("%s: no utterance is in the split %r; choose others for it", self.root, split)
        return self.utterances


def audio_files(paths: Iterable[Path]) -> dict[str, Path]:
    """Returns sound and video files by their stem, sorted, without hidden ones.

    Among files with one stem the one that libsndfile reads wins: people lay a .wav beside each .mp4.
    """
    found: dict[str, Path] = {}
    for path in sorted(paths):
        suffix = path.suffix.lower()
        if path.name.startswith(".") or suffix not in READABLE | CONTAINERS:
            continue
        if path.stem not in found or found[path.stem].suffix.lower() in CONTAINERS:
            found[path.stem] = path
    return dict(sorted(found.items()))


class HeldOut:
    """Tells the split of each speaker (session, official set): `eval` for the named ones, `train` for the
    others.

    Args:
        named: the reader's argument, as the corpus writes them; numbers and their text are one, leading zeros
            or not (YAML reads 07 as 7, and 08 as text).
        default: in the place of None.
        setting: the argument's name, for errors.

    Raises:
        ConfigError: not a list.
    """

    def __init__(
        self,
        named: Iterable[str | int] | None,
        default: Iterable[str | int],
        setting: str = "eval_speakers",
    ):
        if isinstance(named, str | int):
            raise ConfigError(f"{setting}: got {named!r}; it is a list, [{named}] for one")
        self.are_asked_for = named is not None
        self._setting = setting
        chosen: Iterable[str | int] = default if named is None else named
        self._named = {_plain(name): str(name) for name in chosen}
        self._met: set[str] = set()

    def split(self, name: str) -> str:
        """Returns the split of a speaker whom the walk has met."""
        self._met.add(_plain(name))
        return "eval" if _plain(name) in self._named else "train"

    def check(self) -> None:
        """Checks, after the walk, that everyone who was asked for is here.

        Raises:
            ConfigError: someone is not: whoever was meant would be trained on.
        """
        missing = sorted(name for key, name in self._named.items() if key not in self._met)
        if missing and self.are_asked_for:
            there = ", ".join(sorted(self._met))
            raise ConfigError(f"{self._setting}: no recording is of {missing}; the corpus has {there}")


def _plain(name: str | int) -> str:
    """Returns a name without leading zeros, where it is a number."""
    return str(int(name)) if str(name).isdigit() else str(name)
