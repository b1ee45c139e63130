"""Any audio file to float32 mono at one rate."""

from __future__ import annotations

from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from rlcore.errors import DataError


def load_audio(path: str | Path, sample_rate: int = 16000, *, max_seconds: float | None = None) -> np.ndarray:
    """Reads a file, averages its channels and resamples it.

    Args:
        path: anything that libsndfile reads (wav, flac, ogg, mp3, ...).
        sample_rate: of the returned array, in Hz.
        max_seconds: refuse longer files, without decoding them.

    Returns:
        float32 [N]
    Raises:
        DataError: missing, unreadable, empty, too long, or holding NaN; names the file and the reason.
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
    if rate != sample_rate:
        factor = gcd(rate, sample_rate)
        waveform = resample_poly(waveform, sample_rate // factor, rate // factor)
    return np.ascontiguousarray(waveform, dtype=np.float32)
