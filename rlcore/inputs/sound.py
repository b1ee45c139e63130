"""Reads any audio file that libsndfile knows, and refuses what is broken, cut short or of another scale.

Needs soundfile, of the extra `rows` or `emotion`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
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
_UNKNOWN_BYTES = 0x7FFF0000
"""From here on a size is a placeholder of a writer that could not go back to tell the size."""
_SHORTER = re.compile(
    r"^ *(data|SSND|BODY|Data Size|Data length|Riff size|riff) *:? (\d+) \(?should be (\d+)", re.M
)
"""libsndfile's remark on a file that holds less than it tells: what it tells, what there is."""
_CUT = ("seems to be truncated", "Seems to be a truncated file")
"""libsndfile's remarks on other files (MAT4, VOC) that hold less than they tell."""
_ODD = "'data' chunk should be an even number of bytes"
"""libsndfile's remark on a WAV whose size it rounds up, and then finds too short: GSM's blocks are odd."""
_FRAMES = re.compile(r"(?:^ *Frames|\bCols) *: (\d+)", re.M)
"""libsndfile's remark on the number of samples that a file of `_FRAMES_TOLD` tells; the last is right."""
_FRAMES_TOLD = ("AVR", "MPC2K", "MAT4", "MAT5", "SDS")
_SAMPLE_COUNT = re.compile(rb"^sample_count -i (\d+)", re.M)
"""Field of a NIST SPHERE header: the number of samples of each channel."""
_SPHERE_BYTES = 1024
"""Least size of a NIST SPHERE header."""
_BEHIND_SOUND = (b"LIST", b"ID3", b"id3 ", b"TAG", b"APETAGEX", b"bext", b"iXML", b"_PMX", b"cue ", b"smpl")
"""Beginnings of the tags and chunks that writers put behind the sound of a WAV."""
_MISSING_S = 0.1
"""Seconds that may be missing of what a header tells: some encoders count a frame too many."""
_LARGEST_PEAK = 2.0
"""Largest |sample| that can be sound whose full scale is 1: decoders and resamplers go a little over 1."""


def waveform_of(path: str | Path, sample_rate: int, max_seconds: float | None = None) -> np.ndarray:
    """Returns the mean of a file's channels at one rate: float32 [N].

    Args:
        sample_rate: rate of the returned waveform, in Hz.
        max_seconds: cuts what is longer.

    Raises:
        DataError: as `samples_of`.
    """
    samples, rate = samples_of(path)
    kept = samples if max_seconds is None else samples[: int(max_seconds * rate)]
    return np.ascontiguousarray(resampled(kept.mean(axis=1), rate, sample_rate), dtype=np.float32)


def seconds_of(path: str | Path) -> float | None:
    """Returns the length that a file tells, without decoding it; None where it tells none.

    Raises:
        DataError: the file is missing, unreadable, empty or holds less than it tells, as far as its header
            says.
    """
    path = Path(path)
    with _named(path), _Stream(_finished(path) or path) as file:
        _check_whole(path, file)
        if file.frames == 0:
            raise DataError(f"{path}: empty: the file holds no samples")
        return file.frames / file.samplerate if file.frames < _UNKNOWN_FRAMES else None


def resampled(waveform: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Returns a waveform [N] of `rate` Hz at `sample_rate` Hz."""
    if rate == sample_rate:
        return waveform
    factor = gcd(rate, sample_rate)
    resampled: np.ndarray = resample_poly(waveform, sample_rate // factor, rate // factor)
    return resampled


def samples_of(path: str | Path, max_seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Returns all samples of a file, float32 [N, C], and their rate in Hz.

    Args:
        path: anything that libsndfile reads (wav, flac, ogg, mp3, ...), with or without its length told.
        max_seconds: longer files are refused, without being decoded.

    Raises:
        DataError: The file is missing, unreadable, truncated, empty, too long, or holds NaN or numbers of
            another scale than -1 to 1. The error names the file and the reason.
    """
    path = Path(path)
    with _named(path):
        samples, rate = _read(path, _finished(path) or path, max_seconds)
    if len(samples) == 0:
        raise DataError(f"{path}: empty: the file holds no samples")
    if not np.isfinite(samples).all():
        raise DataError(f"{path}: not finite: the samples hold NaN or infinity")
    if (peak := float(np.abs(samples).max())) > _LARGEST_PEAK:
        raise DataError(
            f"{path}: scale: samples reach {peak:g}, full scale is 1. Was a file of floats written with the "
            "values of integers? Write it as integers, or divided by their full scale (32768 of 16 bits)"
        )
    return samples, rate


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Raises what libsndfile and the system say of a file as a DataError that names it."""
    if not path.is_file():
        raise DataError(f"{path}: no such audio file")
    if path.suffix.lower() == ".raw":
        raise DataError(
            f"{path}: unreadable audio: samples without a header do not tell their rate; write it as .wav or "
            ".flac"
        )
    try:
        yield
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path}: unreadable audio: {error.error_string}") from error
    except OSError as error:
        raise DataError(f"{path}: unreadable audio: {error.strerror}") from error


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
        _check_whole(path, file)
        if is_known:
            samples = file.read(frames=file.frames, dtype="float32", always_2d=True)
            if len(samples) and file.frames - len(samples) > _MISSING_S * rate:
                told, there = file.frames / rate, len(samples) / rate
                raise DataError(f"{path}: truncated: it tells {told:.2f} s and holds {there:.2f} s")
            return samples, rate
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


def _check_whole(path: Path, file: soundfile.SoundFile) -> None:
    """Refuses a file that tells of more than there is, by its own words and libsndfile's remarks on it.

    PAF, PVF, IRCAM and XI do not tell how much they hold.
    """
    for _, *sizes in _SHORTER.findall(file.extra_info):
        told, there = map(int, sizes)
        if there + 1 < told < _UNKNOWN_BYTES:  # a last byte of padding may be left out
            raise DataError(f"{path}: truncated: it tells {told} bytes of sound and holds {there}")
    if _ODD not in file.extra_info and any(remark in file.extra_info for remark in _CUT):
        raise DataError(f"{path}: truncated: it tells more sound than the file has room for, and holds less")
    frames: list[str] | list[bytes] = []
    if file.format in _FRAMES_TOLD:
        frames = _FRAMES.findall(file.extra_info)
    elif file.format == "NIST":
        with path.open("rb") as header:
            frames = _SAMPLE_COUNT.findall(header.read(_SPHERE_BYTES))
    elif file.format == "OGG" and not _has_last_page(path.read_bytes()):
        raise DataError(f"{path}: truncated: it tells its stream goes on and holds no last page")
    # Of SDS libsndfile counts what there is, and makes up the rest.
    there, told = sorted((file.frames, int(frames[-1]) if frames else file.frames))
    if told - there > _MISSING_S * file.samplerate:
        seconds = (each / file.samplerate for each in (told, there))
        raise DataError("{}: truncated: it tells {:.2f} s and holds {:.2f} s".format(path, *seconds))


def _has_last_page(ogg: bytes) -> bool:
    """Tells whether the last Ogg page is whole, and marked as the end of its stream (RFC 3533, section 6)."""
    page = ogg[ogg.rfind(b"OggS") :]
    if len(page) < 27:
        return False
    segments = page[27 : 27 + page[26]]
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(segments)


def _finished(path: Path) -> BytesIO | None:
    """Returns a WAV whose writer never came back to tell its sizes (a pipe, a recorder cut off), with them.

    None is any other file: what follows the sound is another chunk, a tag, or padding.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return None
        at, bytes_a_second = 12, 0
        while (chunk := file.read(8))[:4] != b"data":
            if len(chunk) < 8:
                return None
            size = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"fmt ":
                bytes_a_second = int.from_bytes(file.read(12)[8:], "little")
            at += 8 + size + size % 2
            file.seek(at)
        told, start = int.from_bytes(chunk[4:], "little"), at + 8
        file.seek(start + told)
        rest = file.read()
    least = _MISSING_S * bytes_a_second if told else 0
    # An odd size is followed by a byte of padding, which some writers forget.
    if len(rest) <= least or _is_no_sound(rest) or (told % 2 and _is_no_sound(rest[1:])):
        return None
    content = bytearray(path.read_bytes())
    content[4:8] = min(len(content) - 8, 0xFFFFFFFF).to_bytes(4, "little")
    content[at + 4 : start] = min(len(content) - start, 0xFFFFFFFF).to_bytes(4, "little")
    return BytesIO(content)


def _is_no_sound(rest: bytes) -> bool:
    """Tells whether what follows a WAV's sound is padding, a tag, or another chunk: one that is often there,
    whole or not, or any that is whole."""
    is_name = rest[:4].isascii() and rest[:4].decode("ascii").isprintable()
    is_chunk = is_name and int.from_bytes(rest[4:8], "little") <= len(rest) - 8
    return is_chunk or rest.startswith(_BEHIND_SOUND) or not rest.strip(b"\0")
