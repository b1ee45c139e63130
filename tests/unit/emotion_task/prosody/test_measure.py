"""Measuring against speech-like signals whose prosody is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter, savgol_filter

from emotion_task.prosody import f0 as f0_module
from emotion_task.prosody.align import Word
from emotion_task.prosody.f0 import _track_numpy, track_f0
from emotion_task.prosody.measure import _contour, _hann, _smooth, _unsteadiness, measure
from emotion_task.prosody.stress import Stress
from rlcore.errors import DataError

RATE = 16000


def vowel(hertz: np.ndarray, level_db: float = -20.0, noise_db: float = -70.0, seed: int = 0) -> np.ndarray:
    """Harmonics of `hertz` [N] through three resonances, at an RMS level in dBFS."""
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    source = sum(np.cos(k * phase) for k in range(1, 1 + int(6000 / hertz.max())))
    for formant, width in ((700, 110), (1200, 120), (2600, 160)):
        radius = np.exp(-np.pi * width / RATE)
        source = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2], source)
    source = source / np.sqrt(np.mean(source**2)) * 10 ** (level_db / 20)
    return source + np.random.default_rng(seed).normal(size=len(source)) * 10 ** (noise_db / 20)


def glide(*semitones: float, base: float = 150.0, seconds: float = 1.2) -> np.ndarray:
    """F0 in Hz [N] through equally spaced points, given in semitones about `base`."""
    time = np.linspace(0, len(semitones) - 1, int(seconds * RATE))
    return base * 2 ** (np.interp(time, np.arange(len(semitones)), semitones) / 12)


@pytest.fixture(params=["parselmouth", "numpy"])
def tracker(request, monkeypatch):
    if request.param == "parselmouth":
        pytest.importorskip("parselmouth")
    else:
        monkeypatch.setattr(f0_module, "_praat", _track_numpy)
        monkeypatch.setattr(f0_module.importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize("hertz", [80.0, 120.0, 200.0, 330.0, 450.0])
def test_pitch_of_a_vowel_within_half_a_semitone(tracker, hertz):
    measured = measure(vowel(glide(0, 0, base=hertz)), RATE)
    assert measured.f0_reliable
    assert abs(12 * np.log2(measured.f0_median_hz / hertz)) < 0.5
    assert measured.f0_range_st < 0.5
    assert measured.intonation == "flat"


def test_the_fallback_follows_a_glide_like_praat(tracker):
    track = track_f0(vowel(glide(-4, 4)), RATE)
    voiced = track.hertz > 0
    truth = np.interp(track.times[voiced], np.arange(int(1.2 * RATE)) / RATE, glide(-4, 4))
    assert voiced.mean() > 0.9
    assert np.max(np.abs(12 * np.log2(track.hertz[voiced] / truth))) < 0.5


def test_range_and_spread_of_a_glide():
    measured = measure(vowel(glide(-4, 4)), RATE)
    assert measured.f0_range_st == pytest.approx(8 * 0.9, abs=0.4)  # p5 to p95 of a straight line
    assert measured.f0_spread_st == pytest.approx(8 / np.sqrt(12), abs=0.2)
    assert measured.intonation_change_st == pytest.approx(6.0, abs=0.4)  # middles of the outer quarters


def test_noise_has_no_pitch():
    noise = np.random.default_rng(0).normal(size=RATE) * 0.05
    measured = measure(noise, RATE)
    assert not measured.f0_reliable
    assert measured.f0_median_hz is None and measured.f0_range_st is None and measured.intonation is None


def test_level_and_noise_floor():
    pause = np.random.default_rng(1).normal(size=RATE) * 10 ** (-60 / 20)
    signal = np.concatenate([pause, vowel(glide(0, 0), level_db=-20.0), pause])
    measured = measure(signal, RATE)
    assert measured.level_dbfs == pytest.approx(-20.0, abs=1.0)
    assert measured.noise_floor_dbfs == pytest.approx(-60.0, abs=1.0)
    assert measured.snr_db == pytest.approx(40.0, abs=2.0)
    assert measured.speech_start_s == pytest.approx(1.0, abs=0.04)
    assert measured.speech_end_s == pytest.approx(2.2, abs=0.04)


def test_rates_leave_out_or_keep_the_pause():
    word, pause = vowel(glide(0, 0, seconds=0.5), noise_db=-90), np.zeros(RATE // 2)
    measured = measure(np.concatenate([word, pause, word]), RATE, "kids are talking by the door")
    assert measured.num_syllables == 7 and measured.syllables_from == "text"
    assert measured.articulation_rate == pytest.approx(7 / 1.0, rel=0.06)
    assert measured.speaking_rate == pytest.approx(7 / 1.5, rel=0.05)


def test_a_rate_is_of_the_speech_and_one_that_nobody_speaks_at_is_not_reliable():
    pause = np.random.default_rng(1).normal(size=RATE) * 1e-4
    beat = 0.55 - 0.45 * np.cos(2 * np.pi * 4 * np.arange(3 * RATE) / RATE)
    signal = np.concatenate([pause, vowel(glide(0, 0, seconds=3.0)) * beat, pause])
    for text, num_syllables, reliable in (("one two", 2, False), ("one two three four", 4, True)):
        measured = measure(signal, RATE, text)
        assert measured.speaking_rate == pytest.approx(num_syllables / 3.0, rel=0.05)
        assert measured.rate_reliable == reliable  # at 0.7 and 1.3 syllables per second


def test_without_a_transcript_syllable_nuclei_are_counted():
    beat = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * np.arange(int(1.5 * RATE)) / RATE)
    measured = measure(vowel(glide(0, 0, seconds=1.5), noise_db=-80) * beat, RATE)
    assert measured.syllables_from == "nuclei"
    assert measured.num_syllables == 6
    assert measured.articulation_rate == pytest.approx(4.0, rel=0.15)


def test_a_brighter_voice_has_a_higher_tilt():
    dull = vowel(glide(0, 0))
    assert (
        measure(lfilter([1, -0.9], [1], dull), RATE).spectral_tilt_db
        > measure(dull, RATE).spectral_tilt_db + 3
    )


def test_tremor_is_told_from_a_steady_voice():
    time = np.arange(int(1.2 * RATE)) / RATE
    trembling = 200 * 2 ** (np.sin(2 * np.pi * 6 * time) / 12)
    assert measure(vowel(trembling), RATE).f0_tremor_st > 0.4
    assert measure(vowel(glide(0, 0)), RATE).f0_tremor_st < 0.05


def test_roughness_is_the_spread_of_the_second_difference():
    times = np.arange(26) * 0.01
    glide_st, jitter_st = np.linspace(-3, 3, 26), 0.1 * (-1.0) ** np.arange(26)
    assert _unsteadiness(times, glide_st)[0] == pytest.approx(0, abs=1e-9)
    assert _unsteadiness(times, glide_st + jitter_st)[0] == pytest.approx(4 * 0.1)
    apart = times + (np.arange(26) >= 13)  # two stretches, between which nothing is compared
    assert _unsteadiness(apart, jitter_st + 12 * (apart > 1))[0] == pytest.approx(4 * 0.1)


def test_the_contour_begins_with_the_speech():
    pause = np.random.default_rng(1).normal(size=RATE // 2) * 1e-3
    measured = measure(np.concatenate([pause, vowel(glide(0, 12, seconds=1.0)), pause]), RATE)
    middles = [150 * 2**octaves for octaves in (0.1, 0.3, 0.5, 0.7, 0.9)]
    np.testing.assert_allclose(measured.f0_contour_hz[:5], middles, rtol=0.03)
    few = _contour(np.array([0.0, 0.05, 0.1, 0.25, 0.3]), np.array([100.0, 110, 120, 200, 200]), 0.5)
    assert few == [110.0, None, None]


@pytest.mark.parametrize(("margin", "stressed"), [(0.24, None), (0.25, 1)])
def test_a_word_that_leads_by_little_is_not_called_stressed(margin, stressed, monkeypatch):
    monkeypatch.setattr("emotion_task.prosody.measure.find_stress", lambda *_: Stress(1, margin))
    words = [Word("one", 0.0, 0.6), Word("two", 0.6, 1.2)]
    measured = measure(vowel(glide(0, 0)), RATE, words=words)
    assert (measured.stressed_word, measured.stress_margin) == (stressed, margin)


@pytest.mark.parametrize("size", [25, 26, 60])
def test_smoothing_is_savitzky_and_golays(size):
    values = np.random.default_rng(0).normal(size=size)
    np.testing.assert_allclose(_smooth(values), savgol_filter(values, 25, 2), atol=1e-10)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 1000])
def test_the_window_is_hanns(size):
    np.testing.assert_allclose(_hann(size), np.hanning(size), atol=1e-12)


@pytest.mark.parametrize("signal", [np.zeros(RATE), np.full(RATE, 0.3), np.zeros(5), np.zeros(0)])
def test_silence_is_an_error_that_says_so(signal):
    with pytest.raises(DataError, match="silent"):
        measure(signal, RATE)
