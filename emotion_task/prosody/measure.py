"""Measures one recording in physical units: the first pass. What cannot be measured is None, never
guessed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emotion_task.prosody.activity import FRAME_S, Activity, find_activity
from emotion_task.prosody.align import Word
from emotion_task.prosody.f0 import F0Track, track_f0
from emotion_task.prosody.intonation import classify_intonation
from emotion_task.prosody.likeness import is_flattened, like_speech, like_voice, pulsed_fraction, rings
from emotion_task.prosody.stress import MIN_MARGIN, find_stress
from emotion_task.prosody.syllables import count_nuclei, count_syllables
from rlcore.errors import DataError

_MIN_VOICED_FRAMES = 15
_MIN_VOICED_FRACTION = 0.3
"""Share of the speech frames. Modal speech has 0.5 to 0.9 (less in short words), whispering under 0.2."""
_MIN_SNR_DB = 6.0
"""Under this ratio, noise adds a decibel or more to the level, and hides the edges of speech
(docs/explanation/prosody.md)."""
_MIN_F0_SNR_DB, _MIN_RATE_SNR_DB = 8.0, 12.0
"""Under these ratios noise hides voiced frames, and weak syllables."""
_MIN_DYNAMICS_DB, _MOSTLY_VOICED = 11.0, 0.5
"""A recording without pauses does not show its noise. If it then has neither dynamics (whispering has 16 dB,
speech in noise as loud as itself 7) nor voice, it is taken for noise."""
_MAX_CLIPPED = 0.01
_PLAUSIBLE_RATE = (1.0, 12.0)
"""Syllables per second of speech. At other rates, transcript and recording are not of the same utterance."""
_MIN_SYLLABLES = 2
_MARGIN_S = 0.2
"""Seconds kept around speech when F0 is tracked: more than two windows of the lowest pitch."""
_TREMOR_FRAMES = 25
_Fields = dict[str, Any]
"""Some fields of `Measurement`, by name."""

CONTOUR_S = 0.2
"""Length of a segment of the F0 contour, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Holds the prosody of one utterance, in physical units."""

    duration_s: float
    """Length of the file."""
    speech_start_s: float
    speech_end_s: float
    active_s: float
    """Length of the speech without its pauses."""
    level_dbfs: float
    """Active speech level (ITU-T P.56)."""
    noise_floor_dbfs: float | None
    """RMS of the noise in the frames without speech; None where there are too few to tell."""
    snr_db: float | None
    """`level_dbfs` less `noise_floor_dbfs`; None where the noise floor is not known."""
    level_reliable: bool
    """True where the recording is like speech, is not clipped, stays within full scale, and speech stands at
    least 6 dB out of the noise. A recording without pauses must show voice or the dynamics of speech
    instead."""
    clipped_fraction: float
    """Share of the file's samples that lie on a plateau at its highest or lowest value."""
    peak: float
    """Largest |sample| of the file; full scale is 1."""
    f0_reliable: bool
    """True where the recording is like speech, there are enough voiced frames to speak of a pitch, and speech
    stands 8 dB out of the noise; every F0 field is None otherwise."""
    voiced_fraction: float
    """Share of the speech frames that are voiced. Where too few have a pitch and most have the slow pulses of
    a creaking voice, those are counted."""
    f0_median_hz: float | None = None
    f0_p5_hz: float | None = None
    f0_p95_hz: float | None = None
    f0_range_st: float | None = None
    """Interval from `f0_p5_hz` to `f0_p95_hz`, in semitones."""
    f0_spread_st: float | None = None
    """Standard deviation of F0 in semitones."""
    f0_perturbation_st: float | None = None
    """Roughness of the F0 track: spread of its second difference from frame to frame, in semitones."""
    f0_tremor_st: float | None = None
    """RMS of what a smooth curve over 250 ms leaves of F0, in semitones: 4 to 10 Hz tremor."""
    f0_contour_hz: list[float | None] | None = None
    """Median F0 of each `CONTOUR_S` of speech, from `speech_start_s` on; None where unvoiced."""
    intonation: str | None = None
    """Class of the melody, as in `emotion_task.prosody.intonation`; None where unvoiced."""
    intonation_change_st: float | None = None
    """`change_st` of `emotion_task.prosody.intonation.Intonation`."""
    intonation_curvature_st: float | None = None
    """`curvature_st` of `emotion_task.prosody.intonation.Intonation`."""
    turning_point: float | None = None
    """`turning_point` of `emotion_task.prosody.intonation.Intonation`."""
    spectral_tilt_db: float | None = None
    """Energy of 1 to 5 kHz over that of 50 Hz to 1 kHz: high for a bright, pressed or whispered voice. None
    where the file does not reach 5 kHz."""
    num_syllables: int | None = None
    syllables_from: str | None = None
    """Source of `num_syllables`: `text` (transcript) or `nuclei` (energy peaks). The two are not
    comparable."""
    articulation_rate: float | None = None
    """Syllables per second of speech, pauses excluded."""
    speaking_rate: float | None = None
    """Syllables per second from the first to the last sound, pauses included."""
    rate_reliable: bool = False
    """True for two syllables or more, at a rate that people can speak, in a recording that is like speech,
    where speech stands 12 dB out of the noise, no echo fills its gaps, and it is of the transcript, as far as
    an aligner can tell."""
    word_times: list[tuple[str, float, float]] | None = None
    """Each word with its start and end in seconds, where an aligner found them."""
    stressed_word: int | None = None
    """Index of the most prominent of `word_times`; None where no word leads clearly."""
    stress_margin: float | None = None
    """Lead of the most prominent word over the next one, in standard deviations of the weighed cues."""


def measure(
    waveform: np.ndarray,
    sample_rate: int,
    text: str | None = None,
    *,
    language: str = "en",
    words: Sequence[Word] | None = None,
    spoken: np.ndarray | None = None,
    bandwidth_hz: float | None = None,
    clipped_fraction: float = 0.0,
    peak: float | None = None,
) -> Measurement:
    """Measures a mono waveform [N].

    Args:
        waveform: float [N], -1..1.
        sample_rate: in Hz, at least 8000.
        text: transcript, for the speech rate; without one, syllable nuclei are counted.
        language: language of the transcript, ISO 639-1.
        words: the transcript's words with their times, for stress; empty where an aligner found that the
            recording is not of that text.
        spoken: frames of 10 ms in which a detector hears speech, bool [F]; None tells speech by its level.
        bandwidth_hz, clipped_fraction, peak: what the file was like (see `Recording`).

    Raises:
        DataError: The waveform is silent, or nothing in it stands out as speech.
    """
    samples = np.asarray(waveform, dtype=np.float64)
    peak = float(np.abs(samples).max(initial=0)) if peak is None else peak
    samples = samples - samples.mean() if len(samples) else samples
    activity = find_activity(samples, sample_rate, spoken)
    if activity is None:
        raise DataError("silent: no speech stands out of the background")
    track = _track_speech(samples, sample_rate, activity)
    voiced, voiced_fraction, enough_voiced = _voicing(samples, sample_rate, track, activity)
    noise = activity.noise_floor_dbfs
    snr = None if noise is None else activity.level_dbfs - noise
    tilt = _spectral_tilt(samples, sample_rate, activity, bandwidth_hz or sample_rate / 2)
    is_speech = like_speech(activity) and like_voice(voiced_fraction, tilt)
    reliable = bool(is_speech and enough_voiced and (snr is None or snr >= _MIN_F0_SNR_DB))
    num_syllables = count_syllables(text, language)
    stands_out = _dynamics(activity) >= _MIN_DYNAMICS_DB or voiced_fraction >= _MOSTLY_VOICED
    above_noise = is_speech and (stands_out if snr is None else snr >= _MIN_SNR_DB)
    rate_heard = above_noise and (snr is None or snr >= _MIN_RATE_SNR_DB) and words != []
    rate_heard = rate_heard and not rings(activity)
    return Measurement(
        duration_s=len(samples) / sample_rate,
        speech_start_s=activity.start_s,
        speech_end_s=activity.end_s,
        active_s=activity.active_s,
        level_dbfs=activity.level_dbfs,
        noise_floor_dbfs=noise,
        snr_db=snr,
        level_reliable=(
            above_noise
            and clipped_fraction < _MAX_CLIPPED
            and peak <= 1
            and not is_flattened(samples, sample_rate, activity)
        ),
        clipped_fraction=clipped_fraction,
        peak=peak,
        f0_reliable=reliable,
        voiced_fraction=voiced_fraction,
        spectral_tilt_db=tilt,
        **(_pitch_fields(track, voiced, activity) if reliable else {}),
        **_rate_fields(activity, track if reliable else None, num_syllables, rate_heard),
        **(_stress_fields(words, track, activity, reliable) if words else {}),
    )


def _track_speech(samples: np.ndarray, sample_rate: int, activity: Activity) -> F0Track:
    """Tracks F0 of the part with speech: silence around that part costs time and tells nothing."""
    start = max(0, round((activity.start_s - _MARGIN_S) * sample_rate))
    end = round((activity.end_s + _MARGIN_S) * sample_rate)
    track = track_f0(samples[start:end], sample_rate)
    return F0Track(track.times + start / sample_rate, track.hertz)


def _voicing(
    samples: np.ndarray, sample_rate: int, track: F0Track, activity: Activity
) -> tuple[np.ndarray, float, bool]:
    """Returns the frames of speech with a pitch, bool [F of the track], the share of speech with a voice, a
    creaking one included, and whether the pitch is there often enough to be measured."""
    speech = _speech_frames(track, activity)
    voiced = speech & (track.hertz > 0)
    fraction = float(voiced.sum() / max(1, speech.sum()))
    is_enough = bool(voiced.sum() >= _MIN_VOICED_FRAMES and fraction >= _MIN_VOICED_FRACTION)
    if not is_enough and (pulsed := pulsed_fraction(samples, sample_rate, activity)) >= _MOSTLY_VOICED:
        fraction = max(fraction, pulsed)
    return voiced, fraction, is_enough


def _dynamics(activity: Activity) -> float:
    """Returns the span from the 5th to the 95th percentile of the levels of speech frames, in dB."""
    low, high = np.percentile(activity.frame_db[activity.active], [5, 95])
    return float(high - low)


def _speech_frames(track: F0Track, activity: Activity) -> np.ndarray:
    """Returns which frames of the track fall into speech, bool [F of the track]."""
    index = np.minimum((track.times / FRAME_S).astype(int), len(activity.active) - 1)
    return activity.active[index] if len(index) else np.zeros(0, dtype=bool)


def _pitch_fields(track: F0Track, voiced: np.ndarray, activity: Activity) -> _Fields:
    hertz, times = track.hertz[voiced], track.times[voiced]
    low, median, high = np.percentile(hertz, [5, 50, 95])
    semitones = 12 * np.log2(hertz / median)
    melody = classify_intonation(times, semitones)
    perturbation, tremor = _unsteadiness(times, semitones)
    return {
        "f0_median_hz": float(median),
        "f0_p5_hz": float(low),
        "f0_p95_hz": float(high),
        "f0_range_st": float(12 * np.log2(high / low)),
        "f0_spread_st": float(semitones.std()),
        "f0_perturbation_st": perturbation,
        "f0_tremor_st": tremor,
        "f0_contour_hz": _contour(times - activity.start_s, hertz, activity.end_s - activity.start_s),
        "intonation": melody.label,
        "intonation_change_st": melody.change_st,
        "intonation_curvature_st": melody.curvature_st,
        "turning_point": melody.turning_point,
    }


def _contour(times: np.ndarray, hertz: np.ndarray, seconds: float) -> list[float | None]:
    """Returns the median F0 of each segment. `times` [V] count from the start of speech; a segment with fewer
    than three voiced frames is unvoiced."""
    segment = (times / CONTOUR_S).astype(int)
    contour: list[float | None] = []
    for index in range(max(1, int(np.ceil(seconds / CONTOUR_S)))):
        inside = hertz[segment == index]
        contour.append(round(float(np.median(inside)), 1) if len(inside) >= 3 else None)
    return contour


def _unsteadiness(times: np.ndarray, semitones: np.ndarray) -> tuple[float | None, float | None]:
    """Returns perturbation and tremor over unbroken voiced stretches, weighted by their length."""
    breaks = np.flatnonzero(np.diff(times) > 1.5 * FRAME_S) + 1
    rough, residue = [], []
    for stretch in np.split(semitones, breaks):
        if len(stretch) >= 5:
            rough.append(np.diff(stretch[1:-1], 2))
        if len(stretch) >= _TREMOR_FRAMES:
            residue.append(stretch - _smooth(stretch))
    return (
        float(np.concatenate(rough).std()) if rough else None,
        float(np.sqrt(np.mean(np.concatenate(residue) ** 2))) if residue else None,
    )


@functools.cache
def _parabola_fit() -> np.ndarray:
    """Returns the matrix [25, 25] from 25 points to the values of their least-squares parabola."""
    basis = np.vander(np.linspace(-1, 1, _TREMOR_FRAMES), 3)
    return basis @ np.linalg.pinv(basis)


def _smooth(stretch: np.ndarray) -> np.ndarray:
    """Smooths with a parabola over 25 frames (Savitzky-Golay), whose fit also serves the edges. The result is
    that of scipy.signal.savgol_filter, which solves the edges anew each time and takes ten times as long."""
    fit, half = _parabola_fit(), _TREMOR_FRAMES // 2
    return np.concatenate(
        [
            fit[:half] @ stretch[:_TREMOR_FRAMES],
            np.convolve(stretch, fit[half], mode="valid"),
            fit[half + 1 :] @ stretch[-_TREMOR_FRAMES:],
        ]
    )


def _spectral_tilt(
    samples: np.ndarray, sample_rate: int, activity: Activity, bandwidth_hz: float
) -> float | None:
    if min(sample_rate / 2, bandwidth_hz) < 5000:
        return None
    hop = int(FRAME_S * sample_rate)
    keep = np.repeat(activity.active, hop)
    speech = samples[: len(keep)][keep]
    power = np.abs(np.fft.rfft(speech * _hann(len(speech)))) ** 2
    frequency = np.fft.rfftfreq(len(speech), 1 / sample_rate)
    bottom, middle = np.searchsorted(frequency, (50, 1000), side="right")
    top = np.searchsorted(frequency, 5000)
    low, high = power[bottom:middle].sum(), power[middle:top].sum()
    return float(10 * np.log10(high / low)) if low > 0 and high > 0 else None


def _hann(size: int) -> np.ndarray:
    """Returns np.hanning(size). The second half is mirrored: cosines of a whole recording take time."""
    half = 0.5 + 0.5 * np.cos(np.pi * np.arange(1 - size, 1, 2) / max(size - 1, 1))
    return np.concatenate([half, half[::-1][size % 2 :]])


def _rate_fields(activity: Activity, track: F0Track | None, count: int | None, heard: bool) -> _Fields:
    source = "text"
    if count is None:
        voiced = None
        if track is not None:
            voiced = np.zeros(len(activity.active), dtype=bool)
            voiced[np.minimum((track.times[track.hertz > 0] / FRAME_S).astype(int), len(voiced) - 1)] = True
        count, source = count_nuclei(activity.frame_db, activity.active, voiced) or None, "nuclei"
    if count is None:
        return {}
    rate = count / activity.active_s
    plausible = _PLAUSIBLE_RATE[0] <= rate <= _PLAUSIBLE_RATE[1] and count >= _MIN_SYLLABLES
    return {
        "num_syllables": count,
        "syllables_from": source,
        "articulation_rate": rate,
        "speaking_rate": count / (activity.end_s - activity.start_s),
        "rate_reliable": plausible and heard,
    }


def _stress_fields(words: Sequence[Word], track: F0Track, activity: Activity, f0_reliable: bool) -> _Fields:
    stress = find_stress(words, track, activity) if f0_reliable else None
    return {
        "word_times": [(word.text, round(word.start_s, 3), round(word.end_s, 3)) for word in words],
        "stressed_word": None if stress is None or stress.margin < MIN_MARGIN else stress.index,
        "stress_margin": None if stress is None else stress.margin,
    }
