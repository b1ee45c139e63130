"""Checks, before decoding, what a client sent as a recording; measures it, and draws its curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from emotion_task.explain import calibrated
from emotion_task.prosody.activity import FRAME_S, find_activity
from emotion_task.prosody.annotation import with_measured
from emotion_task.prosody.audio import load_audio
from emotion_task.prosody.calibrate import Calibration
from emotion_task.prosody.f0 import track_f0
from emotion_task.prosody.files import SAMPLE_RATE, MeasureConfig, measure_file
from emotion_task.records import Utterance
from emotion_task.serve.refused import MALFORMED, NOT_AUDIO, UNUSABLE, Refused

_RATES_HZ = (4_000, 192_000)
_MAX_SAMPLES_A_SECOND = 2 * _RATES_HZ[1]
"""Samples of all channels together: a small file of silence may unpack to a thousand times its size."""
_NUM_PEAKS = 800
_UNEXPECTED = "unexpected "


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Holds a recording's curves, for drawing."""

    seconds: float
    """Length of the recording."""
    peaks: list[tuple[float, float]]
    """Lowest and highest sample of each of up to 800 equal parts."""
    frame_s: float
    """Length of a frame of `f0_hz` and `energy_db`."""
    f0_hz: list[float | None]
    """Pitch of each frame; None where unvoiced, or where pitch was not measured reliably."""
    energy_db: list[float]
    """Level of each frame, in dBFS."""


def measured_utterance(
    path: Path,
    *,
    text: str | None,
    gender: str | None,
    calibration: Calibration | None,
    max_seconds: float,
) -> Utterance:
    """Measures a recording and returns it with the levels that are known.

    Args:
        path: the recording, under any name.
        text: transcript; without one there is no level of rate.
        gender: `male` or `female`; without it there is no level of pitch.

    Raises:
        Refused: it is not audio, or cannot be used; says why.
    """
    _check_header(path)
    utterance = Utterance(id=path.name, audio=str(path), text=text, gender=gender)
    measured, reason = measure_file(utterance, MeasureConfig(max_seconds=max_seconds))
    if measured is None:
        assert reason is not None, "measure_file gives one of the two"
        if reason.startswith(_UNEXPECTED):
            raise RuntimeError(reason)
        raise Refused(UNUSABLE, f"The recording cannot be used: {reason.rstrip('.')}.")
    utterance = with_measured(utterance, measured)
    return utterance if calibration is None else calibrated(calibration, utterance)


def curves_of(path: Path, measured: dict[str, Any]) -> Curves:
    """Returns the curves of a recording that was measured."""
    waveform = load_audio(path, SAMPLE_RATE)
    num_peaks = min(_NUM_PEAKS, len(waveform))
    starts = np.linspace(0, len(waveform), num_peaks, endpoint=False).astype(int)
    lowest, highest = np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)
    activity = find_activity(waveform - waveform.mean(), SAMPLE_RATE)
    energy = np.zeros(0) if activity is None else activity.frame_db
    f0: list[float | None] = [None] * len(energy)
    if measured.get("f0_reliable"):
        track = track_f0(waveform, SAMPLE_RATE)
        for time, hertz in zip(track.times, track.hertz, strict=True):
            index = int(time / FRAME_S)
            if hertz > 0 and index < len(f0) and activity is not None and activity.active[index]:
                f0[index] = round(float(hertz), 1)
    return Curves(
        seconds=len(waveform) / SAMPLE_RATE,
        peaks=[(round(float(a), 4), round(float(b), 4)) for a, b in zip(lowest, highest, strict=True)],
        frame_s=FRAME_S,
        f0_hz=f0,
        energy_db=[round(float(each), 1) for each in energy],
    )


def _check_header(path: Path) -> None:
    """Refuses what is no audio, and what would unpack to more than a recording of speech has."""
    if path.stat().st_size == 0:
        raise Refused(MALFORMED, "The recording is empty: no byte of it arrived.")
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels = file.samplerate, file.channels
    except soundfile.LibsndfileError as error:
        raise Refused(
            NOT_AUDIO,
            "The recording is not audio that can be read; send WAV, FLAC, Ogg or MP3. "
            f"(libsndfile: {error.error_string.strip().rstrip('.')}.)",
        ) from error
    low, high = _RATES_HZ
    if not low <= rate <= high:
        raise Refused(
            UNUSABLE, f"The recording has {rate} samples a second; {low} to {high} a second can be used."
        )
    if rate * channels > _MAX_SAMPLES_A_SECOND:
        raise Refused(
            UNUSABLE, f"The recording has {channels} channels of {rate} Hz; send one channel, or two."
        )
