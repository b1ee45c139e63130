"""Reads any audio file as float32 mono at one rate."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from rlcore.errors import DataError


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
        path: anything that libsndfile reads (wav, flac, ogg, mp3, ...).
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
        with soundfile.SoundFile(path) as file:
            seconds = file.frames / file.samplerate
            if max_seconds is not None and seconds > max_seconds:
                raise DataError(f"{path}: too long: {seconds:.1f} s, at most {max_seconds:g} s are allowed")
            samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
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


def _clipped_fraction(channel: np.ndarray) -> float:
    """Returns the share of samples [N] that have the extreme value together with the samples on both sides.

    A wave that is merely high touches its extreme for a moment; a wave that was cut off rests there."""
    if channel.max() == channel.min():
        return 0.0
    at_limit = (channel == channel.max()) | (channel == channel.min())
    return float(np.mean(at_limit[1:-1] & at_limit[:-2] & at_limit[2:]))
