"""F0 is of the glottal source and of nothing else: not of formants, not of a strong or a missing harmonic.

Speech is a train of glottal pulses (Rosenberg, 1971) through formant filters, so the truth is the pulse rate.
Both trackers must pass: Praat's and the numpy one.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, lfilter, resample_poly, sosfilt

from emotion_task.prosody import f0 as f0_module
from emotion_task.prosody.f0 import track_f0
from emotion_task.prosody.measure import measure

RATE = 16000
FEW = settings(max_examples=6, deadline=None)
VOWELS = {"i": (280, 2250, 2900), "a": (730, 1090, 2440), "u": (310, 870, 2250), "ae": (660, 1720, 2410)}


@pytest.fixture(params=["parselmouth", "numpy"], autouse=True, scope="module")
def tracker(request):
    if request.param == "parselmouth":
        pytest.importorskip("parselmouth")
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f0_module.importlib.util, "find_spec", lambda name: None)
        yield


def pulses(hertz: np.ndarray, shimmer: float = 0.0) -> np.ndarray:
    """Derivative of Rosenberg's glottal flow at F0 `hertz` [N]; every other pulse weaker by `shimmer`."""
    phase = np.cumsum(hertz) / RATE
    position = phase % 1.0
    opening, closing = 0.4, 0.16
    flow = np.where(
        position < opening,
        0.5 * (1 - np.cos(np.pi * position / opening)),
        np.where(position < opening + closing, np.cos(0.5 * np.pi * (position - opening) / closing), 0.0),
    )
    weight = 1 - shimmer * (np.floor(phase) % 2)
    return np.diff(flow * weight, prepend=0.0)


def through(source: np.ndarray, formants: tuple[float, ...]) -> np.ndarray:
    for formant in formants:
        radius = np.exp(-np.pi * (50 + 0.05 * formant) / RATE)
        source = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2], source)
    return 0.2 * source / np.abs(source).max() + np.random.default_rng(0).normal(size=len(source)) * 1e-4


def flat(hertz: float, seconds: float = 0.6) -> np.ndarray:
    return np.full(int(seconds * RATE), hertz)


def error_st(waveform: np.ndarray, hertz: float) -> float:
    """Median over the voiced frames; at least half of all must be voiced."""
    track = track_f0(waveform, RATE)
    voiced = track.hertz > 0
    assert voiced.mean() > 0.5
    return float(abs(12 * np.log2(np.median(track.hertz[voiced]) / hertz)))


@pytest.mark.parametrize("vowel", VOWELS)
@FEW
@given(hertz=st.floats(75, 420))
def test_any_pitch_in_any_vowel(vowel, hertz):
    assert error_st(through(pulses(flat(hertz)), VOWELS[vowel]), hertz) < 0.2


@FEW
@given(hertz=st.floats(90, 300), shift=st.floats(0.7, 1.4))
def test_moving_the_formants_leaves_the_pitch(hertz, shift):
    moved = tuple(shift * formant for formant in VOWELS["a"])
    assert error_st(through(pulses(flat(hertz)), moved), hertz) < 0.2


@FEW
@given(hertz=st.floats(100, 250), harmonic=st.sampled_from([2, 3, 4]))
def test_a_formant_on_a_harmonic_is_no_octave_up(hertz, harmonic):
    assert error_st(through(pulses(flat(hertz)), (harmonic * hertz, 2400)), hertz) < 0.2


@FEW
@given(hertz=st.floats(120, 300), shimmer=st.floats(0, 0.1))
def test_uneven_pulses_are_no_octave_down(hertz, shimmer):
    assert error_st(through(pulses(flat(hertz), shimmer), VOWELS["a"]), hertz) < 0.2


@FEW
@given(hertz=st.floats(100, 250))
def test_a_missing_fundamental_is_heard(hertz):
    telephone = butter(6, [max(300, 1.4 * hertz), 3400], "bandpass", fs=RATE, output="sos")
    assert error_st(sosfilt(telephone, through(pulses(flat(hertz)), VOWELS["a"])), hertz) < 0.2


@FEW
@given(low=st.floats(90, 180), span=st.floats(-8, 8), gap_s=st.floats(0.05, 0.3))
def test_a_glide_is_followed_and_an_unvoiced_gap_is_not_filled(low, span, gap_s):
    hertz = low * 2 ** (np.linspace(0, span, int(1.0 * RATE)) / 12)
    speech = through(pulses(hertz), VOWELS["a"])
    start, end = int(0.4 * RATE), int((0.4 + gap_s) * RATE)
    hiss = lfilter([1, -0.9], [1], np.random.default_rng(1).normal(size=end - start))
    speech[start:end] = 0.02 * hiss
    track = track_f0(speech, RATE)
    voiced = track.hertz > 0
    truth = hertz[(track.times[voiced] * RATE).astype(int)]
    error = np.abs(12 * np.log2(track.hertz[voiced] / truth))
    assert np.median(error) < 0.2 and np.mean(error > 2) < 0.03
    inside = (track.times > 0.4 + 0.02) & (track.times < 0.4 + gap_s - 0.02)
    assert not (voiced & inside).any()


@FEW
@given(hertz=st.floats(100, 260), pause_s=st.floats(0.2, 1.0))
def test_pauses_move_neither_pitch_nor_level_nor_articulation_rate(hertz, pause_s):
    word = through(pulses(flat(hertz, 0.5)), VOWELS["ae"])
    silence = np.random.default_rng(2).normal(size=int(pause_s * RATE)) * 1e-4
    together = measure(np.concatenate([word, word]), RATE, "one two three four")
    apart = measure(np.concatenate([word, silence, word]), RATE, "one two three four")
    assert abs(12 * np.log2(apart.f0_median_hz / together.f0_median_hz)) < 0.1
    assert abs(apart.level_dbfs - together.level_dbfs) < 0.5
    assert abs(apart.articulation_rate / together.articulation_rate - 1) < 0.12
    assert apart.speaking_rate < together.speaking_rate


@FEW
@given(hertz=st.floats(100, 260), repeats=st.integers(2, 4))
def test_duration_alone_changes_no_median(hertz, repeats):
    melody = hertz * 2 ** (np.linspace(2, -2, int(0.6 * RATE)) / 12)
    word = np.abs(np.sin(np.linspace(0, 2 * np.pi, len(melody)))) ** 0.5  # two syllables
    once = through(pulses(melody), VOWELS["a"]) * word
    short, long = measure(once, RATE), measure(np.tile(once, repeats), RATE)
    assert abs(12 * np.log2(long.f0_median_hz / short.f0_median_hz)) < 0.3
    assert abs(long.level_dbfs - short.level_dbfs) < 0.3


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_the_sample_rate_changes_nothing_that_it_carries(rate):
    source = through(pulses(flat(140.0, 0.8)), VOWELS["a"])
    resampled = resample_poly(source, rate // 50, RATE // 50)
    before, after = measure(source, RATE), measure(resampled, rate)
    assert abs(12 * np.log2(after.f0_median_hz / before.f0_median_hz)) < 0.1
    assert abs(after.level_dbfs - before.level_dbfs) < 0.3
    assert (after.spectral_tilt_db is None) == (rate == 8000)
    if rate > 8000:
        assert abs(after.spectral_tilt_db - before.spectral_tilt_db) < 0.5
