"""Reads any audio file as float32 mono at one rate."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from rlcore.errors import DataError

_UNKNOWN_FRAMES = 2**62
"""From here on a number of frames is libsndfile's word for a length that the file does not tell."""
_BLOCK_FRAMES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Holds a file's sound, and what the file was like before resampling."""

    waveform: np.ndarray
    """Mono samples, float32 [N]."""
    sample_rate: int
    """Sample rate of `waveform`, in Hz."""
    bandwidth_hz: float
    """Half the file's own sample rate: nothing was recorded above that frequency."""
    clipped_fraction: float
    """Share of the file's samples that lie on a plateau at its highest or lowest value."""


def load_audio(path: str | Path, sample_rate: int = 16000, *, max_seconds: float | None = None) -> np.ndarray:
    """Returns the mono waveform that `read_recording` reads, float32 [N]."""
    return read_recording(path, sample_rate, max_seconds=max_seconds).waveform


def read_recording(
    path: str | Path, sample_rate: int = 16000, *, max_seconds: float | None = None
) -> Recording:
    """Reads a file, averages its channels and resamples it.

    Args:
        path: anything that libsndfile reads (wav, flac, ogg, mp3, ...), with or without its length told.
        sample_rate: sample rate of the returned waveform, in Hz.
        max_seconds: longer files are refused, without being decoded.

    Raises:
        DataError: The file is missing, unreadable, empty, too long, or holds NaN; the error names the file
            and the reason.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such audio file")
    try:
        samples, rate = _read(path, path, max_seconds)
        if len(samples) == 0 and (finished := _finished(path)) is not None:
            samples, rate = _read(path, finished, max_seconds)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path}: unreadable audio: {error.error_string}") from error
    if len(samples) == 0:
        raise DataError(f"{path}: empty: the file holds no samples")
    waveform = samples.mean(axis=1)
    if not np.isfinite(waveform).all():
        raise DataError(f"{path}: not finite: the samples hold NaN or infinity")
    clipped = max(_clipped_fraction(channel) for channel in samples.T)
    if rate != sample_rate:
        factor = gcd(rate, sample_rate)
        waveform = resample_poly(waveform, sample_rate // factor, rate // factor)
    return Recording(
        waveform=np.ascontiguousarray(waveform, dtype=np.float32),
        sample_rate=sample_rate,
        bandwidth_hz=rate / 2,
        clipped_fraction=clipped,
    )


class _Stream(soundfile.SoundFile):
    """A file that is read from its beginning to its end, so that no format needs to find places in it: GSM
    cannot, nor FLAC whose header does not tell the length."""

    def seekable(self) -> bool:
        return False


def _read(path: Path, source: Path | BytesIO, max_seconds: float | None) -> tuple[np.ndarray, int]:
    """Returns samples [N, channels] and their rate; refuses what is too long, naming `path`."""
    with _Stream(source) as file:
        rate = file.samplerate
        is_known = file.frames < _UNKNOWN_FRAMES
        seconds = file.frames / rate
        if is_known and max_seconds is not None and seconds > max_seconds:
            raise DataError(f"{path}: too long: {seconds:.1f} s, at most {max_seconds:g} s are allowed")
        if is_known:
            return file.read(frames=file.frames, dtype="float32", always_2d=True), rate
        blocks: list[np.ndarray] = []
        while not blocks or len(blocks[-1]) == _BLOCK_FRAMES:
            if max_seconds is not None and len(blocks) * _BLOCK_FRAMES > max_seconds * rate:
                raise DataError(f"{path}: too long: at most {max_seconds:g} s are allowed")
            blocks.append(file.read(frames=_BLOCK_FRAMES, dtype="float32", always_2d=True))
    samples = np.concatenate(blocks)
    if max_seconds is not None and len(samples) > max_seconds * rate:
        raise DataError(
            f"{path}: too long: {len(samples) / rate:.1f} s, at most {max_seconds:g} s are allowed"
        )
    return samples, rate


def _finished(path: Path) -> BytesIO | None:
    """Returns a WAV whose writer never came back to tell its sizes (a pipe, a recorder cut off), with them.

    None is any other file: where the sizes agree with the file, the recording is empty.
    """
    content = bytearray(path.read_bytes())
    told = int.from_bytes(content[4:8], "little") + 8
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE" or told == len(content):
        return None
    at = 12
    while content[at : at + 4] != b"data":
        if at + 8 > len(content):
            return None
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    left = len(content) - at - 8
    if content[at + 4 : at + 8] != bytes(4) or left <= 0:
        return None
    content[4:8] = min(len(content) - 8, 0xFFFFFFFF).to_bytes(4, "little")
    content[at + 4 : at + 8] = min(left, 0xFFFFFFFF).to_bytes(4, "little")
    return BytesIO(content)


def _clipped_fraction(channel: np.ndarray) -> float:
    """Returns the share of samples [N] that have the extreme value together with the samples on both sides.

    A wave that is merely high touches its extreme for a moment; a wave that was cut off rests there."""
    if channel.max() == channel.min():
        return 0.0
    at_limit = (channel == channel.max()) | (channel == channel.min())
    return float(np.mean(at_limit[1:-1] & at_limit[:-2] & at_limit[2:]))
