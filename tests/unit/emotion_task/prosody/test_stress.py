"""Words found in speech whose word times are known, and the one that stands out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from emotion_task.prosody.activity import Activity
from emotion_task.prosody.align import Word, warp
from emotion_task.prosody.f0 import F0Track
from emotion_task.prosody.stress import find_stress
from emotion_task.records import Utterance

RATE = 16000


def features(rows: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, (rows, 3), elements=st.floats(0.1, 1.0))


def cheapest(distance: np.ndarray) -> float:
    """Of all warping paths, by the recursion itself."""
    total = np.full(np.array(distance.shape) + 1, np.inf)
    total[0, 0] = 0.0
    for i, j in np.ndindex(distance.shape):
        total[i + 1, j + 1] = distance[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return float(total[-1, -1])


@given(first=features(6), second=features(4))
def test_warping_takes_the_cheapest_of_all_paths(first, second):
    path, cost = warp(first, second)
    steps = np.diff(path, axis=0)
    assert tuple(path[0]) == (0, 0) and tuple(path[-1]) == (5, 3)
    assert set(map(tuple, steps)) <= {(0, 1), (1, 0), (1, 1)}
    assert cost * len(path) == pytest.approx(cheapest(cdist(first, second, "cosine")), abs=1e-9)


def test_a_signal_aligns_with_itself_on_the_diagonal():
    signal = np.random.default_rng(0).normal(size=(30, 5))
    path, cost = warp(signal, signal)
    assert np.array_equal(path, np.stack([np.arange(30)] * 2, axis=1)) and cost == pytest.approx(0, abs=1e-9)


def spoken(pitch_st: list[float], level_db: list[float], seconds: list[float]):
    """A track and activity in which word i has a pitch, a level and a length."""
    ends = np.cumsum(seconds)
    words = [
        Word(f"w{i}", float(e - s), float(e)) for i, (s, e) in enumerate(zip(seconds, ends, strict=True))
    ]
    times = np.arange(0.005, ends[-1], 0.01)
    which = np.minimum(np.searchsorted(ends, times, "right"), len(words) - 1)
    track = F0Track(times, 120 * 2 ** (np.array(pitch_st)[which] / 12))
    level = np.array(level_db)[which]
    activity = Activity(-20.0, -60.0, level.astype(float), np.ones(len(times), dtype=bool))
    return words, track, activity


@pytest.mark.parametrize("index", [0, 2, 4])
def test_the_higher_louder_longer_word_is_stressed(index):
    pitch, level, seconds = np.zeros(5), np.full(5, -20.0), np.full(5, 0.3)
    pitch[index], level[index], seconds[index] = 3, -17, 0.4
    stress = find_stress(*spoken(list(pitch), list(level), list(seconds)))
    assert stress.index == index and stress.margin > 1


def test_of_words_that_differ_in_nothing_else_the_longest_is_stressed():
    assert find_stress(*spoken([0] * 5, [-20] * 5, [0.3, 0.3, 0.45, 0.3, 0.3])).index == 2


def test_a_melody_that_falls_stresses_no_first_word():
    """The phrase melody is taken off: what stands out is what differs from it."""
    pitch = [6, 3, 3.5, -3, -6]
    assert find_stress(*spoken(pitch, [-20] * 5, [0.3] * 5)).index == 2


def test_words_said_as_one_do_not_compete():
    words, track, activity = spoken([0, 5, 0, 1], [-20, -15, -20, -19], [0.3] * 4)
    words[1] = Word("in the", words[1].start_s, words[1].end_s)
    assert find_stress(words, track, activity).index == 3


def test_too_little_to_compare_is_null():
    words, track, activity = spoken([0, 5], [-20, -15], [0.3] * 2)
    assert find_stress(words[:1], track, activity) is None
    assert find_stress(words, F0Track(track.times, track.hertz * 0), activity) is None


class TestSynthesisAligner:
    """Against the synthesiser's own word times."""

    @pytest.fixture(autouse=True)
    def _synthesis(self):
        pytest.importorskip("espeakng_loader")
        pytest.importorskip("parselmouth")

    def test_stressed_words_are_found(self):
        from emotion_task.corpora.synthesis.design import draw_corpus
        from emotion_task.corpora.synthesis.render import render
        from emotion_task.prosody.align import SynthesisAligner
        from emotion_task.prosody.measure import measure

        right = 0
        designs = [replace(d, whispered=False) for d in draw_corpus(12, 1, seed=3, spread=1.0)[:12]]
        for design in designs:
            said = Utterance(id="", audio="", text=design.text, gender=design.speaker.gender)
            waveform = render(design)
            words = SynthesisAligner(max_cost=9).align(waveform, RATE, said)
            assert " ".join(word.text for word in words) == design.text
            assert all(a.end_s == b.start_s for a, b in pairwise(words))
            found = measure(waveform, RATE, words=words)
            if found.stressed_word is not None:
                right += words[found.stressed_word].text == design.text.split()[design.stressed_word]
        assert right >= 0.8 * len(designs)

    def test_word_times_are_right_to_a_frame_or_two(self):
        from scipy.signal import resample_poly

        from emotion_task.corpora.synthesis.espeak import Espeak
        from emotion_task.prosody.align import SynthesisAligner

        text = "Seven dogs are sitting by the kitchen door"
        with Espeak.fresh(1) as library:
            speech = library.speak(text + ".", "en-us+m5", 210)
        waveform = resample_poly(speech.waveform, RATE, speech.sample_rate)
        words = SynthesisAligner().align(waveform, RATE, Utterance(id="", audio="", text=text))
        heard = [word.start_s for word in words[1:]]
        assert np.abs(np.array(heard) - speech.word_starts[1:]).max() < 0.05

    @pytest.mark.parametrize("text", [None, "", "?!", "..."])
    def test_nothing_to_align_is_null(self, text):
        from emotion_task.prosody.align import SynthesisAligner

        tone = 0.1 * np.sin(np.arange(RATE) * 0.05)
        assert SynthesisAligner().align(tone, RATE, Utterance(id="", audio="", text=text)) is None
