"""Sound that libsndfile does not read (AAC in .m4a and .mp4): decoded once, by PyAV, to FLAC of its rate and
channels.

Training reads every recording many times and measuring reads it at least once, so a video is not decoded
again and again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soundfile

from emotion_task.corpora.reading.listing import CONTAINERS
from emotion_task.records import Utterance, broken_text
from rlcore.errors import DataError, MissingDependencyError
from rlcore.records.files import replaced
from rlcore.records.progress import Progress

log = logging.getLogger(__name__)

_SOUND_ALONE = {".m4a", ".aac", ".wma"}
_MISSING_S = 0.5
"""Seconds that may be missing of what a container tells: encoders pad, and round to frames."""


def decode_containers(
    utterances: Sequence[Utterance], folder: str | Path, *, progress: bool = True
) -> list[Utterance]:
    """Decodes recordings in .m4a, .mp4 and the like into `folder`, and returns the utterances with FLAC files
    in their place. What may hold pictures is their `video` from then on.

    What lies there already is not decoded again, unless the source has changed. A file that cannot be decoded
    keeps its path, so that the measuring pass quarantines it; the log says why.

    Raises:
        MissingDependencyError: there are such files, and PyAV is not installed.
    """
    found = rewrite(
        utterances,
        lambda utterance: Path(utterance.audio).suffix.lower() in CONTAINERS,
        lambda utterance: decode(utterance.audio),
        folder,
        progress=progress,
    )
    return [
        replace(now, video=str(Path(before.audio).resolve()))
        if now.audio != before.audio and now.video is None and _may_show(before.audio)
        else now
        for before, now in zip(utterances, found, strict=True)
    ]


def _may_show(path: str) -> bool:
    return Path(path).suffix.lower() not in _SOUND_ALONE


def rewrite(
    utterances: Sequence[Utterance],
    is_chosen: Callable[[Utterance], bool],
    sound: Callable[[Utterance], tuple[np.ndarray, int]],
    folder: str | Path,
    *,
    format: str = "FLAC",
    progress: bool = False,
) -> list[Utterance]:
    """Writes the sound of the chosen utterances to files in `folder`, and returns all utterances, the
    chosen ones with these files in the recordings' place.

    What lies there already is not written again, unless the recording has changed. Where `sound` raises
    DataError, the path stays and the log says why.

    Args:
        sound: returns samples [N] or [N, C] and their rate in Hz.
        format: `FLAC` for samples of 16 bits, `WAV` for floats.
    """
    # A name that UTF-8 cannot write is no file's: the measuring pass quarantines it.
    waiting = [u for u in utterances if is_chosen(u) and broken_text(u) is None]
    written: dict[int, Utterance] = {}
    for utterance in Progress(waiting, desc="decoding", unit="file", disable=not progress or not waiting):
        target = Path(folder) / f"{_name(utterance)}.{format.lower()}"
        try:
            if not target.is_file():
                _write(target, *sound(utterance), format)
            # By identity: a list may hold an id twice, which only the measuring pass sorts out.
            written[id(utterance)] = replace(utterance, audio=str(target.resolve()))
        except DataError as error:
            log.warning("%s", error)
    return [written.get(id(utterance), utterance) for utterance in utterances]


def _name(utterance: Utterance) -> str:
    """Returns the stem of the written file: no two recordings or channels share one, and a changed recording
    gets another."""
    source = Path(utterance.audio).resolve()
    found = source.stat() if source.is_file() else None
    stamp = found and (found.st_size, found.st_mtime_ns)
    described = (utterance.id, str(source), stamp, utterance.channel, "every channel")
    digest = hashlib.sha256(repr(described).encode()).hexdigest()[:12]
    return f"{utterance.id.replace('/', '_')}-{digest}"


def decode(path: str | Path) -> tuple[np.ndarray, int]:
    """Decodes the first sound track of a file. Of more than two channels the front centre is taken, where
    there is one: in films it holds the dialogue.

    Returns:
        int16 [N, C], and their rate in Hz.
    Raises:
        DataError: missing, broken, truncated, or without sound; names the file.
        MissingDependencyError: PyAV is not installed.
    """
    av = _pyav()
    if not Path(path).is_file():
        raise DataError(f"{path}: no such audio file")
    try:
        # Titles and comments are of no interest, and old cameras did not write them as UTF-8.
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.audio:
                raise DataError(f"{path}: it holds no sound")
            track = container.streams.audio[0]
            layout, rate = track.layout, track.rate
            names, told = [channel.name for channel in layout.channels], _told_seconds(container)
            resampler = av.AudioResampler(format="s16p", layout=layout, rate=rate)
            parts = [
                part.to_ndarray()
                for frame in (*container.decode(audio=0), None)
                for part in resampler.resample(frame)
            ]
    except DataError:
        raise
    except Exception as error:  # the boundary to FFmpeg: one odd file must not end a run over a corpus
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: unreadable audio: {reason}") from error
    if not parts:
        raise DataError(f"{path}: empty: the file holds no samples")
    samples = np.concatenate(parts, axis=1).T
    if told is not None and len(samples) / rate < told - _MISSING_S:
        raise DataError(
            f"{path}: truncated: it tells {told:.2f} s of sound and holds {len(samples) / rate:.2f} s"
        )
    return (samples[:, [names.index("FC")]] if len(names) > 2 and "FC" in names else samples), rate


def _told_seconds(container: Any) -> float | None:
    """Returns the length that a container tells of its first sound track; None where it tells none, or only
    guesses (raw AAC)."""
    track = container.streams.audio[0]
    if "mov" in container.format.name and track.duration:
        return float(track.duration * track.time_base)
    if "matroska" in container.format.name and len(container.streams) == 1 and container.duration:
        return float(container.duration / 1e6)
    return None


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            "these recordings are .m4a or .mp4, which PyAV decodes: pip install -e '.[video]' in the "
            "project's folder (or write a .wav or .flac of the same name beside each: ffmpeg -i clip.mp4 "
            "-ar 16000 -ac 1 clip.wav)"
        ) from error
    return av


def _write(target: Path, samples: np.ndarray, rate: int, format: str) -> None:
    with replaced(target) as partial:
        subtype = "PCM_16" if format == "FLAC" else "FLOAT"
        soundfile.write(partial, samples, rate, format=format, subtype=subtype)
