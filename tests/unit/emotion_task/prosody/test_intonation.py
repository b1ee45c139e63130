"""The melody's class from points whose shape is known."""

from __future__ import annotations

import numpy as np
import pytest

from emotion_task.prosody.intonation import classify_intonation


def classify(*points: float, seconds: float = 1.5, noise: float = 0.1):
    times = np.linspace(0, seconds, int(seconds * 100))
    melody = np.interp(times, np.linspace(0, seconds, len(points)), points)
    melody = melody + np.random.default_rng(0).normal(0, noise, len(times))
    return classify_intonation(times, melody - np.median(melody))


@pytest.mark.parametrize(
    ("points", "label"),
    [
        ((3, -3), "falling"),
        ((-3, 3), "rising"),
        ((0, 0, 0, 5), "rising"),
        ((-3, 3, -3), "rising-falling"),
        ((3, -3, 3), "falling-rising"),
        ((0.5, -0.5), "flat"),
        ((-1.2, 1.2, -1.2), "flat"),
        ((-6, 6, -6, 6, -6), "expressive"),
        ((-2.5, 2.5, -2.5, 2.5, -2.5), "uncertain"),
    ],
)
def test_shapes(points, label):
    assert classify(*points).label == label


def test_too_short_to_tell():
    assert classify(3, -3, seconds=0.3).label == "too_short"


def test_the_vertex_is_where_the_melody_turns():
    assert classify(-3, 3, -3).turning_point == pytest.approx(0.5, abs=0.03)
    assert classify(3, -3).turning_point is None


def test_turning_a_melody_upside_down_swaps_its_class():
    assert classify(1, -4, 2).label == "falling-rising"
    assert classify(-1, 4, -2).label == "rising-falling"


def test_gaps_are_not_filled():
    times = np.concatenate([np.arange(0, 0.4, 0.01), np.arange(1.2, 1.6, 0.01)])
    result = classify_intonation(times, np.where(times < 1, -3.0, 3.0))
    assert result.label == "rising"
    assert result.change_st == pytest.approx(6.0)
