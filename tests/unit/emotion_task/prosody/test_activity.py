"""Where somebody speaks, and how loud: in noise with pauses, in rumble, compressed, long."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter
from spoken import RATE, in_pauses, pink, speech, voice

from emotion_task.facts import has_no_pitch
from emotion_task.prosody.activity import find_activity
from emotion_task.prosody.f0 import track_f0
from emotion_task.prosody.measure import measure

TEXT = "kids are talking by the door"


def noisy(samples: np.ndarray, snr_db: float, kind: str, seed: int = 0) -> np.ndarray:
    activity = find_activity(samples, RATE)
    noise = (
        pink(len(samples), seed) if kind == "pink" else np.random.default_rng(seed).normal(size=len(samples))
    )
    return samples + noise * 10 ** ((activity.level_dbfs - snr_db) / 20)


@pytest.mark.parametrize("kind", ["pink", "white"])
@pytest.mark.parametrize("snr_db", [25.0, 18.0, 15.0])
def test_noise_in_the_pauses_is_not_speech(kind, snr_db):
    for seed in range(4):
        clean = in_pauses(speech(seed=seed))
        expected, found = measure(clean, RATE, TEXT), measure(noisy(clean, snr_db, kind, seed), RATE, TEXT)
        assert found.articulation_rate == pytest.approx(expected.articulation_rate, rel=0.1)
        assert found.level_dbfs == pytest.approx(expected.level_dbfs, abs=0.5)
        assert found.snr_db == pytest.approx(snr_db, abs=1)
        assert found.f0_reliable and found.rate_reliable and found.level_reliable
        assert abs(12 * np.log2(found.f0_median_hz / expected.f0_median_hz)) < 1


@pytest.mark.parametrize("kind", ["pink", "white"])
@pytest.mark.parametrize("snr_db", [10.0, 6.0, 0.0])
def test_what_noise_hides_is_not_called_reliable(kind, snr_db):
    for seed in range(4):
        clean = in_pauses(speech(seed=seed))
        expected, found = measure(clean, RATE, TEXT), measure(noisy(clean, snr_db, kind, seed), RATE, TEXT)
        assert not found.rate_reliable
        if snr_db > 0:
            assert found.snr_db == pytest.approx(snr_db, abs=2)
        if found.level_reliable:
            assert found.level_dbfs == pytest.approx(expected.level_dbfs, abs=2)
        if found.f0_reliable:
            assert abs(12 * np.log2(found.f0_median_hz / expected.f0_median_hz)) < 2
        assert not has_no_pitch({name: getattr(found, name) for name in found.__dataclass_fields__})


def test_a_whisper_in_quiet_has_no_pitch_and_one_in_noise_is_not_known():
    envelope = np.convolve(np.abs(speech()), np.hanning(400) / 200, mode="same")
    clean = in_pauses(np.random.default_rng(0).normal(size=len(envelope)) * envelope)
    for samples, expected in ((clean, True), (noisy(clean, 9, "white", 1), False)):
        found = measure(samples, RATE, TEXT)
        assert has_no_pitch({name: getattr(found, name) for name in found.__dataclass_fields__}) is expected


def test_rumble_is_not_speech():
    """Handling noise and breath on a microphone lie below 70 Hz, at the level of quiet speech."""
    clean = in_pauses(speech())
    thumps = np.zeros(len(clean))
    for start in (0.2, len(clean) / RATE - 0.7):
        window = slice(int(start * RATE), int((start + 0.5) * RATE))
        size = window.stop - window.start
        thumps[window] = np.hanning(size) * np.sin(2 * np.pi * 25 * np.arange(size) / RATE)
    expected, found = find_activity(clean, RATE), find_activity(clean + thumps * 10 ** (-36 / 20), RATE)
    assert found.active_s == pytest.approx(expected.active_s, abs=0.03)
    assert found.start_s == pytest.approx(expected.start_s, abs=0.02)


@pytest.mark.parametrize("ratio", [1, 2, 4, 10])
@pytest.mark.parametrize("num_syllables", [24, 120, 480])
def test_compression_and_length_leave_the_level(ratio, num_syllables):
    """A compressor with a ratio of 10:1 leaves 1.5 of 15 dB between strong and weak syllables."""
    samples = speech(num_syllables)
    envelope = np.maximum(lfilter([0.002], [1, -0.998], np.abs(samples)), 1e-4)
    samples = samples * envelope ** (1 / ratio - 1)
    samples *= 10 ** (-26 / 20) / np.sqrt(np.mean(samples**2))
    found = find_activity(in_pauses(samples), RATE)
    assert found.active_s == pytest.approx(len(samples) / RATE, rel=0.05)
    assert found.level_dbfs == pytest.approx(-26, abs=1)


def test_a_steady_voice_is_not_silence():
    found = find_activity(voice(150, 12) * 0.05, RATE)
    assert found.active_s > 11.9 and found.level_dbfs == pytest.approx(-26.02, abs=0.1)


@pytest.mark.parametrize("hertz", [250, 450, 585, 650, 800])
def test_a_scream_is_not_heard_an_octave_low(hertz):
    track = track_f0(voice(hertz, 1.5) * 0.3, RATE)
    assert 12 * abs(np.log2(np.median(track.hertz[track.hertz > 0]) / hertz)) < 0.5


def test_a_recording_of_another_text_has_no_rate():
    samples = in_pauses(speech())
    assert (
        measure(samples, RATE, TEXT).rate_reliable and measure(samples, RATE, TEXT, words=None).rate_reliable
    )
    assert not measure(samples, RATE, TEXT, words=[]).rate_reliable
