from __future__ import annotations

import random
from dataclasses import replace

import pytest

from emotion_task.labels import ALL_LABELS
from emotion_task.records import Utterance
from emotion_task.reward_model.listening import (
    ASPECTS,
    aspects_of,
    claimed_aspects,
    drawn_hearing,
    heard_aspects,
    known_aspects,
    listen_target,
    support,
)

UTTERANCE = Utterance(
    id="1", audio="1.wav", emotion="sad", gender="female", pitch_level="high", intonation="flat"
)
RESPONSE = "<think>A woman speaks. The pitch is low. This points to sad.</think><answer>{answer}</answer>"


def test_the_row_is_a_digit_an_aspect() -> None:
    assert list(ASPECTS) == ["pitch_level", "energy_level", "speed_level", "intonation", "gender", "emotion"]
    assert all(len(values) <= 10 for values in ASPECTS.values())
    assert listen_target(UTTERANCE) == "2--412"
    assert listen_target(Utterance(id="2", audio="2.wav")) == "------"


def test_claims_are_those_of_the_reasoning_and_the_answer() -> None:
    claims = {"pitch_level": "low", "gender": "female"}
    assert claimed_aspects(RESPONSE.format(answer="angry")) == claims | {"emotion": "angry"}
    assert claimed_aspects(RESPONSE.format(answer="no label")) == claims | {"emotion": "sad"}
    assert claimed_aspects("The pitch is low. <answer>The rate is fast.</answer>") == {"pitch_level": "low"}


def test_support_is_the_probability_of_each_claim() -> None:
    heard = {"pitch_level": (0.5, 0.3, 0.2, 0.0), "gender": (0.0, 1.0), "energy_level": (1.0, 0.0, 0.0)}
    claims = {"pitch_level": "normal", "gender": "female", "speed_level": "fast"}
    assert support(claims, heard) == "3---9-"
    assert support({"pitch_level": "contradictory"}, heard) == "0-----"


def test_a_row_of_digits_is_read_over_each_aspects_values() -> None:
    rows = [[0.1] * 10 for _ in ASPECTS]
    rows[4] = [0.6, 0.2, *[0.025] * 8]
    heard = heard_aspects(rows)
    assert heard["pitch_level"] == pytest.approx([0.25] * 4)
    assert heard["gender"] == pytest.approx([0.75, 0.25])
    rows[1] = [0.0] * 9 + [1.0]
    assert heard_aspects(rows)["energy_level"] == pytest.approx([1 / 3] * 3)


def test_drawn_listeners_are_calibrated() -> None:
    """Of all claims that a listener gives a probability about p, a share p is right."""
    rng = random.Random(0)
    likely: list[tuple[float, bool]] = []
    for _ in range(20000):
        heard = drawn_hearing({"intonation": "flat"}, rng)["intonation"]
        assert sum(heard) == pytest.approx(1.0)
        likely += [(p, place == 4) for place, p in enumerate(heard)]
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = [(p, right) for p, right in likely if low <= p < low + 0.2]
        mean = sum(p for p, _ in inside) / len(inside)
        assert sum(right for _, right in inside) / len(inside) == pytest.approx(mean, abs=0.02)
    sure = sum(max(drawn_hearing({"gender": "male"}, rng)["gender"]) > 0.9 for _ in range(1000))
    assert 300 < sure < 900


def test_a_set_of_ones_own_has_the_digits_of_its_order() -> None:
    aspects = aspects_of(["sarcasm", "agreement"])
    assert aspects["emotion"] == ("sarcasm", "agreement")
    sarcastic = replace(UTTERANCE, emotion="sarcasm")
    assert listen_target(sarcastic, aspects) == "2--410" and listen_target(sarcastic) == "2--41-"
    assert listen_target(UTTERANCE, aspects) == "2--41-"
    claims = claimed_aspects(RESPONSE.format(answer="Agreement"), aspects)
    assert claims["emotion"] == "agreement"
    named = RESPONSE.replace("to sad", "to sarcasm").format(answer="no label")
    assert claimed_aspects(named, aspects)["emotion"] == "sarcasm"
    hearing = drawn_hearing(known_aspects(sarcastic, aspects), random.Random(0), aspects)
    assert len(hearing["emotion"]) == 2
    assert support(claims, {"emotion": (0.4, 0.6)}, aspects) == "-----5"
    rows = [[0.1] * 10 for _ in aspects]
    assert heard_aspects(rows, aspects)["emotion"] == pytest.approx([0.5, 0.5])


def test_our_labels_keep_their_digits_and_more_than_ten_have_none() -> None:
    assert aspects_of(["sad", "angry", "calm"]) == aspects_of(ALL_LABELS) == ASPECTS
    aspects = aspects_of([f"kind {letter}" for letter in "abcdefghijk"])
    assert "emotion" not in aspects
    assert listen_target(replace(UTTERANCE, emotion="kind a"), aspects) == "2--41"
    assert "emotion" not in claimed_aspects(RESPONSE.format(answer="kind a"), aspects)
