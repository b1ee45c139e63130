"""Input that no measurement can be right about: the reason is told, or a flag; nothing is guessed."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from scipy.signal import lfilter

from emotion_task.facts import stated_facts
from emotion_task.prosody.annotation import with_measured
from emotion_task.prosody.audio import read_recording
from emotion_task.prosody.calibrate import Calibration, Cuts, apply_calibration
from emotion_task.prosody.files import MeasureConfig, measure_file
from emotion_task.records import Utterance
from rlcore.errors import ConfigError

RATE = 16000
CALIBRATION = Calibration(
    (33.0, 67.0),
    {
        "pitch": {"manifest/male": Cuts(100.0, 150.0, 30)},
        "energy": {"manifest": Cuts(-30.0, -20.0, 30)},
        "speed": {"manifest/text": Cuts(3.0, 5.0, 30), "manifest/nuclei": Cuts(3.0, 5.0, 30)},
    },
)


def speech(seconds: float = 1.2, hertz: float = 125.0, rate: int = RATE) -> np.ndarray:
    """Pulses through two formants in syllables of a quarter of a second, after 0.3 s of faint noise: [N]."""
    count = int(seconds * rate)
    source = np.diff(np.floor(np.arange(count) * hertz / rate), prepend=0.0)
    for formant in (600, 1400):
        radius = np.exp(-np.pi * 100 / rate)
        source = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * formant / rate), radius**2], source)
    source *= np.abs(np.sin(2 * np.pi * 2 * np.arange(count) / rate)) ** 0.3
    source = np.concatenate([np.zeros(int(0.3 * rate)), 0.5 * source / np.abs(source).max()])
    return source + np.random.default_rng(0).normal(size=len(source)) * 1e-4


def annotated(tmp_path, samples, rate=RATE, text=None, config=None, **format):
    path = tmp_path / "x.wav"
    soundfile.write(path, samples, rate, **format)
    utterance = Utterance(id="x", audio=str(path), text=text, gender="male")
    measured, reason = measure_file(utterance, config)
    return reason or apply_calibration(CALIBRATION, with_measured(utterance, measured))


def test_good_speech_is_the_standard_to_compare_with(tmp_path):
    found = annotated(tmp_path, speech(), text="one two three four five")
    assert (found.pitch_level, found.energy_level, found.speed_level) == ("normal", "high", "normal")
    flags = ("f0_reliable", "level_reliable", "rate_reliable")
    assert all(found.measured[flag] for flag in flags)


def test_noise_alone_has_no_pitch_and_no_contour(tmp_path):
    found = annotated(tmp_path, np.random.default_rng(0).normal(size=RATE) * 0.05)
    assert found.pitch_level is None and found.intonation is None and found.energy_level is None
    assert not found.measured["f0_reliable"] and "f0_median_hz" not in found.measured
    assert "pitch_level" not in stated_facts(found)  # unknown, not a whisper


def test_speech_drowned_in_noise_gets_no_level(tmp_path):
    drowned = speech() + np.random.default_rng(0).normal(size=int(1.5 * RATE)) * 0.15
    found = annotated(tmp_path, drowned)
    assert not found.measured["level_reliable"]
    assert found.energy_level is None and found.speed_level is None


def test_clipping_is_counted_and_takes_the_level_away(tmp_path):
    clipped = np.clip(8 * speech(), -0.9, 0.9)
    found = annotated(tmp_path, clipped, text="one two three four five")
    assert 0.01 < found.measured["clipped_fraction"] < 0.5
    assert not found.measured["level_reliable"] and found.energy_level is None
    assert found.pitch_level == "normal"  # clipping keeps the period
    loud = read_recording(tmp_path / "x.wav").clipped_fraction
    soundfile.write(tmp_path / "quiet.wav", 0.1 * clipped, RATE, subtype="FLOAT")
    assert read_recording(tmp_path / "quiet.wav").clipped_fraction == pytest.approx(loud, abs=0.01)


def test_a_transcript_of_something_else_gives_no_rate(tmp_path):
    found = annotated(tmp_path, speech(), text="word " * 60)
    assert found.measured["articulation_rate"] > 12 and not found.measured["rate_reliable"]
    assert found.speed_level is None


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(RATE), "silent"),
        (np.full(RATE, 0.3), "silent"),
        (np.zeros(0), "empty"),
        (speech()[: RATE // 20], "too short"),
        (np.where(np.arange(RATE) == 5, np.nan, 0.1), "not finite"),
        (np.where(np.arange(RATE) == 5, np.inf, 0.1), "not finite"),
        (np.sign(np.sin(np.arange(RATE) * 0.05)), "clipped"),
    ],
)
def test_what_cannot_be_measured_says_why(tmp_path, samples, reason):
    told = annotated(tmp_path, samples, subtype="FLOAT")
    assert isinstance(told, str) and told.startswith(reason)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT", "DOUBLE", "ULAW"])
def test_the_sample_format_changes_little(tmp_path, subtype):
    plain = annotated(tmp_path, speech()).measured
    found = annotated(tmp_path, speech(), subtype=subtype).measured
    assert abs(12 * np.log2(found["f0_median_hz"] / plain["f0_median_hz"])) < 0.1
    assert abs(found["level_dbfs"] - plain["level_dbfs"]) < 1.0
    assert found["level_reliable"] and found["f0_reliable"]


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
def test_any_sample_rate(tmp_path, rate):
    plain = annotated(tmp_path, speech()).measured
    found = annotated(tmp_path, speech(rate=rate), rate).measured
    assert abs(12 * np.log2(found["f0_median_hz"] / plain["f0_median_hz"])) < 0.1
    # A telephone's band tells nothing of 4 to 5 kHz, whatever the rate it is read at.
    assert ("spectral_tilt_db" in found) == (rate > 8000)


def test_two_channels_are_averaged(tmp_path):
    mono = annotated(tmp_path, speech()).measured
    stereo = annotated(tmp_path, np.stack([1.2 * speech(), 0.8 * speech()], axis=1)).measured
    assert stereo["f0_median_hz"] == pytest.approx(mono["f0_median_hz"], rel=1e-3)
    assert stereo["level_dbfs"] == pytest.approx(mono["level_dbfs"], abs=0.01)


def test_half_an_hour_is_refused_unread(tmp_path, monkeypatch):
    seconds_read, read = [], soundfile.SoundFile.read

    def watched(file, *args, **kwargs):
        seconds_read.append(file.frames / file.samplerate)
        return read(file, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", watched)
    told = annotated(tmp_path, np.zeros(30 * 60 * 8000, np.int16), 8000)
    assert isinstance(told, str) and told.startswith("too long: 1800.0 s, at most 30 s")
    annotated(tmp_path, speech())
    assert seconds_read == [pytest.approx(1.5)]


def test_settings_and_plugins_that_cannot_be_are_named():
    with pytest.raises(ConfigError, match="max_seconds"):
        MeasureConfig(min_seconds=2, max_seconds=1)
    with pytest.raises(ConfigError, match=r"aligner\.target"):
        measure_file(Utterance(id="x", audio="x"), MeasureConfig(aligner="nowhere"))
