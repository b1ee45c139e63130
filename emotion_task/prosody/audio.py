"""Reads any audio file as float32 mono at one rate.

What is measured and what models hear is read here, so that they are the same sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emotion_task.corpora.reading.decode import rewrite
from emotion_task.prosody.channels import one_channel
from emotion_task.records import Utterance
from rlcore.inputs.sound import resampled, samples_of


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
    peak: float
    """Largest |sample| of the file; full scale is 1, which a file of floats may exceed."""


def load_audio(path: str | Path, sample_rate: int = 16000, *, max_seconds: float | None = None) -> np.ndarray:
    """Returns the mono waveform that `read_recording` reads, float32 [N]."""
    return read_recording(path, sample_rate, max_seconds=max_seconds).waveform


def read_recording(
    path: str | Path,
    sample_rate: int = 16000,
    *,
    channel: int | None = None,
    max_seconds: float | None = None,
) -> Recording:
    """Reads one channel of a file, or the mean of channels that hold the same sound, and resamples it.

    Args:
        path: anything that libsndfile reads (wav, flac, ogg, mp3, ...), with or without its length told.
        sample_rate: sample rate of the returned waveform, in Hz.
        channel: number of the channel, from 1; None where all hold the same.
        max_seconds: longer files are refused, without being decoded.

    Raises:
        DataError: The file is missing, unreadable, truncated, empty, too long, or holds NaN or numbers of
            another scale than -1 to 1; it has no such channel, or none is named and its channels differ
            (`emotion_task.prosody.channels`). The error names the file and the reason.
    """
    samples, rate = samples_of(path, max_seconds)
    waveform = one_channel(samples, rate, channel, path)
    meant = samples if channel is None else samples[:, [channel - 1]]
    peak = float(np.abs(meant).max())
    clipped = max(_clipped_fraction(each) for each in meant.T)
    return Recording(
        waveform=np.ascontiguousarray(resampled(waveform, rate, sample_rate), dtype=np.float32),
        sample_rate=sample_rate,
        bandwidth_hz=rate / 2,
        clipped_fraction=clipped,
        peak=peak,
    )


def cut_channels(utterances: Sequence[Utterance], folder: str | Path) -> list[Utterance]:
    """Writes the channel of each utterance that names one to a WAV file in `folder`, and returns the
    utterances with these files in the recordings' place: models hear the channel that is measured.

    What lies there already is not written again, unless its recording has changed. A recording without such a
    channel keeps its path, so that the measuring pass quarantines it; the log says why.
    """
    written = rewrite(
        utterances,
        lambda utterance: utterance.channel is not None,
        _named_channel,
        folder,
        format="WAV",
    )
    return [
        new if new is old else replace(new, channel=None)
        for old, new in zip(utterances, written, strict=True)
    ]


def _named_channel(utterance: Utterance) -> tuple[np.ndarray, int]:
    samples, rate = samples_of(utterance.audio)
    return one_channel(samples, rate, utterance.channel, utterance.audio), rate


def _clipped_fraction(channel: np.ndarray) -> float:
    """Returns the share of samples [N] that have the extreme value together with the samples on both sides.

    A wave that is merely high touches its extreme for a moment; a wave that was cut off rests there."""
    if channel.max() == channel.min():
        return 0.0
    at_limit = (channel == channel.max()) | (channel == channel.min())
    return float(np.mean(at_limit[1:-1] & at_limit[:-2] & at_limit[2:]))
