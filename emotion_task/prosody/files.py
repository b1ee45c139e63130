"""Reads, checks and measures one file of a corpus, or gives the reason why that was not possible."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from emotion_task.prosody.align import Aligner
from emotion_task.prosody.audio import Recording, read_recording
from emotion_task.prosody.measure import measure
from emotion_task.prosody.speaker import SpeakerClassifier
from emotion_task.prosody.vad import SpeechDetector, heard_speech
from emotion_task.records import Utterance
from rlcore.config.io import check
from rlcore.config.targets import build_target
from rlcore.errors import DataError, RLCoreError

Measured = dict[str, Any]
"""Known fields of `Measurement` and `SpeakerTraits`, by name."""

SAMPLE_RATE = 16000
_SILENT_PEAK = 1e-4
_CLIPPED_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """Configures what is measured, and of which files. These settings decide every number, so they are kept
    beside the measurements."""

    min_seconds: float = 0.2
    """Shortest file that is measured; shorter files are quarantined."""
    max_seconds: float = 30.0
    """Longest file that is measured; longer files are quarantined."""
    language: str = "en"
    """Language (ISO 639-1) of transcripts whose corpus does not tell."""
    aligner: str | None = None
    """`package.module:Class` that finds the words, for stress (see `emotion_task.prosody.align.Aligner`)."""
    speaker_classifier: str | None = None
    """`package.module:Class` that hears gender and age (`emotion_task.prosody.speaker.SpeakerClassifier`)."""

    vad: str | None = None
    """`package.module:Class` that hears speech (`emotion_task.prosody.vad.SpeechDetector`); without one,
    speech is told from noise by its level."""

    def __post_init__(self) -> None:
        check(self.min_seconds > 0, "min_seconds", self.min_seconds, "positive")
        check(self.max_seconds > self.min_seconds, "max_seconds", self.max_seconds, "more than min_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Holds the result of measuring one utterance: measurements, or the reason why there are none."""

    key: str
    """The utterance's key in the store (`emotion_task.prosody.store.key_of`)."""
    measured: Measured | None = None
    """The measurements; None where measuring failed."""
    reason: str | None = None
    """Reason of a failure, as `kind: details`."""


def build_plugins(
    config: MeasureConfig,
) -> tuple[Aligner | None, SpeakerClassifier | None, SpeechDetector | None]:
    """Returns the aligner, the speaker classifier and the speech detector; each is None where none is
    configured.

    Raises:
        ConfigError: A target cannot be imported or built.
    """
    return (
        _build(config.aligner, "aligner"),
        _build(config.speaker_classifier, "speaker_classifier"),
        _build(config.vad, "vad"),
    )


@functools.lru_cache(maxsize=8)
def _build(target: str | None, where: str) -> Any:
    return None if target is None else build_target(target, {}, where=where)


def measure_file(
    utterance: Utterance, config: MeasureConfig | None = None
) -> tuple[Measured | None, str | None]:
    """Measures one utterance and returns (known fields, None), or (None, reason) where that failed.

    No file raises an error: an unexpected failure is a reason, too."""
    config = config or MeasureConfig()
    aligner, classifier, detector = build_plugins(config)
    path = Path(utterance.audio)
    try:
        recording = read_recording(
            path, SAMPLE_RATE, channel=utterance.channel, max_seconds=config.max_seconds
        )
        _check_recording(recording, config.min_seconds)
        utterance = replace(utterance, language=utterance.language or config.language)
        words = aligner.align(recording.waveform, SAMPLE_RATE, utterance) if aligner else None
        measurement = measure(
            recording.waveform,
            SAMPLE_RATE,
            utterance.text,
            language=utterance.language or config.language,
            words=words,
            spoken=heard_speech(detector, recording.waveform, SAMPLE_RATE) if detector else None,
            bandwidth_hz=recording.bandwidth_hz,
            clipped_fraction=recording.clipped_fraction,
            peak=recording.peak,
        )
        row = {f.name: getattr(measurement, f.name) for f in fields(measurement)}  # asdict copies it all
        if classifier:
            row |= asdict(classifier.classify(recording.waveform, SAMPLE_RATE, measurement))
    except RLCoreError as error:
        return None, str(error).removeprefix(f"{path}: ")
    except Exception as error:  # the boundary: one odd file must not end a run over a corpus
        return None, f"unexpected {type(error).__name__}: {error}"
    return {
        field: round(value, 5) if isinstance(value, float) else value
        for field, value in row.items()
        if value is not None
    }, None


def _check_recording(recording: Recording, min_seconds: float) -> None:
    waveform = recording.waveform
    seconds = len(waveform) / SAMPLE_RATE
    if seconds < min_seconds:
        raise DataError(f"too short: {seconds:.2f} s, at least {min_seconds:g} s are needed")
    peak = float(np.abs(waveform - waveform.mean()).max())
    if peak < _SILENT_PEAK:
        raise DataError(f"silent: no sample exceeds {_SILENT_PEAK:g} of full scale")
    if recording.clipped_fraction > _CLIPPED_SHARE:
        raise DataError(f"clipped: {recording.clipped_fraction:.0%} of the samples lie at the limit")
