"""What is no speech, comes from a ringing room or was cut off is not called reliable; speech is."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy.signal import lfilter
from spoken import RATE, in_pauses, speech

from benchmarks.degraded import NO_SPEECH, clipped, compressed, in_room, no_speech, recoded
from emotion_task.facts import has_no_pitch
from emotion_task.prosody.activity import find_activity
from emotion_task.prosody.audio import read_recording
from emotion_task.prosody.likeness import like_voice, rings
from emotion_task.prosody.measure import Measurement, measure

TEXT = "kids are talking by the door and dogs are sitting by the door"


def long_speech(seed: int) -> np.ndarray:
    return speech(14, seed=seed)


def flags(found: Measurement) -> tuple[bool, bool, bool]:
    return found.f0_reliable, found.level_reliable, found.rate_reliable


@pytest.mark.parametrize("seed", range(4))
def test_speech_is_called_reliable(seed):
    samples = long_speech(seed)
    for said in (samples, in_pauses(samples)):
        found = measure(said, RATE, TEXT)
        assert flags(found) == (True, True, True)


@pytest.mark.parametrize("kind", NO_SPEECH)
@pytest.mark.parametrize("seed", range(4))
def test_what_is_no_speech_is_not(kind, seed):
    rng = np.random.default_rng(seed)
    sound = no_speech(kind, rng.uniform(3, 5), rng)
    for samples in (sound, in_pauses(sound) + 3e-4 * rng.normal(size=len(sound) + 2 * RATE)):
        found = measure(samples, RATE, TEXT)
        assert flags(found) == (False, False, False)
        assert not has_no_pitch(asdict(found))


@pytest.mark.parametrize("seed", range(4))
def test_a_room_that_rings_for_two_seconds_hides_the_rate(seed):
    wet = in_room(in_pauses(long_speech(seed)), 2.0, np.random.default_rng(seed))
    assert flags(measure(wet, RATE, TEXT)) == (False, False, False)


@pytest.mark.parametrize("seed", range(4))
def test_the_echo_of_a_room_hides_the_rate_alone(seed):
    """The echo makes speech seem longer than it is; compressed speech is loud in its gaps as well."""
    said = in_pauses(long_speech(seed))
    rng = np.random.default_rng(seed)
    wet, squeezed = in_room(said, 1.2, rng), compressed(said, 4) + 1e-4 * rng.normal(size=len(said))
    heard = {name: find_activity(x, RATE) for name, x in (("dry", said), ("wet", wet), ("4:1", squeezed))}
    assert {name: rings(activity) for name, activity in heard.items()} == {
        "dry": False,
        "wet": True,
        "4:1": False,
    }
    assert not measure(wet, RATE, TEXT).rate_reliable and measure(said, RATE, TEXT).rate_reliable


def test_a_short_steady_cry_is_heard():
    time = np.arange(RATE) / RATE
    cry = sum(np.cos(2 * np.pi * 300 * k * time) / k for k in range(1, 10))
    found = measure(in_pauses(0.1 * cry), RATE)
    assert found.f0_reliable and found.level_reliable


@pytest.mark.parametrize(
    ("format", "subtype", "rate"),
    [
        ("MP3", "MPEG_LAYER_III", RATE),
        ("OGG", "OPUS", RATE),
        ("WAV", "PCM_16", 8000),
        ("WAV", "PCM_16", 22050),
    ],
)
def test_clipping_is_known_after_a_codec_or_another_rate(tmp_path, format, subtype, rate):
    for seed in range(3):
        samples = in_pauses(speech(14, level_db=-30, seed=seed))
        for cut, reliable in ((samples, True), (clipped(samples, 0.1) * 0.8, False)):
            path = recoded(cut, tmp_path / "x", format, subtype, rate)
            recording = read_recording(path)
            assert recording.clipped_fraction < 0.01  # the plateaus are gone
            found = measure(recording.waveform, RATE, TEXT, clipped_fraction=recording.clipped_fraction)
            assert found.level_reliable is reliable and found.f0_reliable


def creak(hertz: float, jitter: float) -> np.ndarray:
    """Pulses of uneven strength and distance through three resonances, with an RMS of 0.05: [2 s]."""
    rng, source, at = np.random.default_rng(0), np.zeros(2 * RATE), 0.0
    while at < len(source):
        source[int(at)] = rng.uniform(0.5, 1)
        at += max(1, RATE / hertz * (1 + jitter * rng.normal()))
    for formant, width in ((600, 100), (1400, 120), (2600, 160)):
        radius = np.exp(-np.pi * width / RATE)
        source = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2], source)
    source *= np.abs(np.sin(2 * np.pi * 2 * np.arange(len(source)) / RATE))
    return 0.05 * source / np.sqrt(np.mean(source**2))


@pytest.mark.parametrize("hertz", [30, 45, 55])
@pytest.mark.parametrize("jitter", [0.0, 0.1, 0.25])
def test_a_creaking_voice_is_no_whisper(hertz, jitter):
    samples = in_pauses(creak(hertz, jitter))
    found = measure(samples + 1e-4 * np.random.default_rng(1).normal(size=len(samples)), RATE, TEXT)
    assert found.level_reliable and found.voiced_fraction > 0.9
    assert not found.f0_reliable and not has_no_pitch(asdict(found))


@pytest.mark.parametrize(
    ("voiced", "tilt", "expected"),
    [(0.0, None, True), (0.0, 0.0, True), (0.0, -12.0, False), (0.2, -12.0, True)],
)
def test_a_whisper_is_bright(voiced, tilt, expected):
    assert like_voice(voiced, tilt) is expected
