"""Sound that libsndfile does not read (AAC in .m4a and .mp4): decoded once, by PyAV, to FLAC of its rate.

Training reads every recording many times and measuring reads it at least once, so a video is not decoded
again and again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile
from tqdm import tqdm

from emotion_task.corpora.reading.listing import CONTAINERS
from emotion_task.records import Utterance, broken_text
from rlcore.errors import DataError, MissingDependencyError
from rlcore.records.files import replaced

log = logging.getLogger(__name__)


def decode_containers(
    utterances: Sequence[Utterance], folder: str | Path, *, progress: bool = True
) -> list[Utterance]:
    """Decodes recordings in .m4a, .mp4 and the like into `folder`, and returns the utterances with FLAC files
    in their place.

    What lies there already is not decoded again, unless the source has changed. A file that cannot be decoded
    keeps its path, so that the measuring pass quarantines it; the log says why.

    Raises:
        MissingDependencyError: there are such files, and PyAV is not installed.
    """
    # A name that UTF-8 cannot write is no file's: the measuring pass quarantines it.
    named = (u for u in utterances if broken_text(u) is None)
    waiting = [u for u in named if Path(u.audio).suffix.lower() in CONTAINERS]
    if not waiting:
        return list(utterances)
    folder = Path(folder)
    decoded: dict[str, str] = {}
    for utterance in tqdm(waiting, desc="decoding", unit="file", disable=not progress):
        target = folder / _name(utterance)
        try:
            if not target.is_file():
                _write(target, *decode(utterance.audio))
            decoded[utterance.id] = str(target.resolve())
        except DataError as error:
            log.warning("%s", error)
    return [replace(u, audio=decoded[u.id]) if u.id in decoded else u for u in utterances]


def _name(utterance: Utterance) -> str:
    """Returns the decoded file's name: no two recordings share one, and a changed one gets another."""
    source = Path(utterance.audio).resolve()
    found = source.stat() if source.is_file() else None
    described = (utterance.id, str(source), found and (found.st_size, found.st_mtime_ns))
    digest = hashlib.sha256(repr(described).encode()).hexdigest()[:12]
    return f"{utterance.id.replace('/', '_')}-{digest}.flac"


def decode(path: str | Path) -> tuple[np.ndarray, int]:
    """Decodes the first sound track of a file, its channels averaged.

    Returns:
        int16 [N], and their rate in Hz.
    Raises:
        DataError: missing, broken, or without sound; names the file.
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
            rate = container.streams.audio[0].rate
            resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
            parts = [
                part.to_ndarray()[0]
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
    return np.concatenate(parts), rate


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


def _write(target: Path, samples: np.ndarray, rate: int) -> None:
    with replaced(target) as partial:
        soundfile.write(partial, samples, rate, format="FLAC")
