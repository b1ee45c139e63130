"""What recording conditions must not change, and what they change by exactly how much."""

from __future__ import annotations

import functools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from emotion_task.prosody.measure import Measurement, measure

RATE = 16000
SPEED = settings(max_examples=12, deadline=None)


@functools.cache
def speech(seed: int) -> np.ndarray:
    """Two voiced words with a melody, quiet enough to be amplified by 12 dB."""
    rng = np.random.default_rng(seed)
    words = []
    for seconds in rng.uniform(0.35, 0.6, 2):
        time = np.arange(int(seconds * RATE)) / RATE
        semitones = np.interp(time, np.linspace(0, seconds, 4), rng.uniform(-4, 4, 4))
        pulses = np.diff(
            np.floor(np.cumsum(rng.uniform(100, 220) * 2 ** (semitones / 12)) / RATE), prepend=0.0
        )
        word = lfilter([1], [1, -1.6, 0.9], lfilter([1], [1, -1.2, 0.8], pulses))
        words += [word * np.hanning(len(word)) ** 0.25, np.zeros(int(0.08 * RATE))]
    signal = np.concatenate(words)
    signal = signal / np.abs(signal).max() * 0.2
    return signal + rng.normal(size=len(signal)) * 1e-4


@functools.cache
def measured(seed: int) -> Measurement:
    return measure(speech(seed), RATE, "one two")


@SPEED
@given(seed=st.integers(0, 5), gain_db=st.floats(-20, 12))
def test_gain_moves_the_level_by_itself_and_nothing_else(seed, gain_db):
    louder = measure(speech(seed) * 10 ** (gain_db / 20), RATE, "one two")
    before = measured(seed)
    assert abs(louder.level_dbfs - before.level_dbfs - gain_db) < 0.01
    assert louder.intonation == before.intonation
    assert louder.articulation_rate == before.articulation_rate
    assert louder.f0_reliable == before.f0_reliable
    for field in (
        "f0_median_hz",
        "f0_range_st",
        "spectral_tilt_db",
        "voiced_fraction",
        "intonation_change_st",
    ):
        old, new = getattr(before, field), getattr(louder, field)
        assert new == old or abs(new - old) < 1e-3 * max(1, abs(old)), field


@SPEED
@given(seed=st.integers(0, 5), before_s=st.floats(0, 2), after_s=st.floats(0, 2))
def test_silence_around_changes_nothing_but_the_times(seed, before_s, after_s):
    lead, tail = int(before_s * 100) * 160, int(after_s * 100) * 160
    padded = measure(np.pad(speech(seed), (lead, tail)), RATE, "one two")
    plain = measured(seed)
    assert abs(padded.level_dbfs - plain.level_dbfs) < 0.5
    assert abs(padded.articulation_rate / plain.articulation_rate - 1) < 0.05
    assert abs(padded.speech_start_s - plain.speech_start_s - lead / RATE) < 0.03
    assert padded.f0_reliable == plain.f0_reliable
    if plain.f0_reliable:
        assert abs(12 * np.log2(padded.f0_median_hz / plain.f0_median_hz)) < 0.3
        # Not the class itself: frames fall elsewhere, and a melody on the border may cross it.
        assert abs(padded.intonation_change_st - plain.intonation_change_st) < 0.4
        assert abs(padded.f0_range_st - plain.f0_range_st) < 0.5


@SPEED
@given(seed=st.integers(0, 3), semitones=st.floats(-3, 3))
def test_playing_faster_moves_pitch_and_rate_by_the_same_factor(seed, semitones):
    factor = 2 ** (semitones / 12)
    plain = measured(seed)
    moved = measure(speech(seed), round(RATE * factor), "one two")
    if plain.f0_reliable and moved.f0_reliable:
        assert abs(12 * np.log2(moved.f0_median_hz / plain.f0_median_hz) - semitones) < 0.5
        assert abs(moved.f0_range_st - plain.f0_range_st) < 1.0
    assert abs(moved.speaking_rate / plain.speaking_rate / factor - 1) < 0.06
