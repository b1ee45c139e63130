from __future__ import annotations

import random
from dataclasses import replace

import pytest

from emotion_task.claims.support import learn_table
from emotion_task.labels import ALL_LABELS
from emotion_task.records import Utterance
from emotion_task.reward_model.listening import (
    ASPECTS,
    aspects_of,
    claimed_aspects,
    drawn_support,
    heard_aspects,
    known_aspects,
    listen_target,
    support,
    support_digits,
)

UTTERANCE = Utterance(
    id="1", audio="1.wav", emotion="sad", gender="female", pitch_level="high", intonation="flat"
)
TABLE = learn_table([replace(UTTERANCE, pitch_level="low"), replace(UTTERANCE, emotion="happy")])
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
    assert support(claims, heard, None) == "3---9--43"  # 0.7 of a claim is probably wrong
    assert support({"pitch_level": "contradictory"}, heard, None) == "0------40"
    assert support({}, heard, TABLE) == "-------10"


def test_the_line_says_whether_the_claims_support_the_emotion() -> None:
    for emotion, digit in (("sad", "9"), ("happy", "0"), ("calm", "-")):
        assert support({"pitch_level": "low", "emotion": emotion}, {}, TABLE) == f"------{digit}10"
    assert support({"emotion": "sad"}, {}, TABLE) == "------010"


def test_the_expected_grade_of_facts_is_that_of_the_rules_for_a_sure_listener() -> None:
    values = {name: values[0] for name, values in ASPECTS.items()}
    for num_wrong in range(6):
        likely = {name: float(place >= num_wrong) for place, name in enumerate(values)}
        assert support_digits(values, likely, None).endswith(str(max(10, 50 - 10 * num_wrong)))
    assert support_digits(values, likely | {"emotion": 0.0}, None) == "000000-10"


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
    for _ in range(40000):
        truth = {"intonation": "flat" if rng.random() < 0.7 else "rising"}
        line = drawn_support({"intonation": "flat"}, truth, None, rng)
        likely.append((int(line[3]) / 9, truth["intonation"] == "flat"))
    for digit in range(10):
        inside = [right for p, right in likely if round(9 * p) == digit]
        # The first and the last digit stand for half as wide a range.
        middle = (digit / 9, 1 / 36, 35 / 36)[1 if digit == 0 else 2 if digit == 9 else 0]
        assert sum(inside) / len(inside) == pytest.approx(middle, abs=0.05), digit
    sure = sum(p in (0.0, 1.0) for p, _ in likely)
    assert 0.3 * len(likely) < sure < 0.7 * len(likely)
    assert drawn_support({"gender": "contradictory"}, {"gender": "male"}, None, rng) == "----0--40"
    assert drawn_support({"gender": "male"}, {}, None, rng) == "-------10"


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
    assert support(claims, {"emotion": (0.4, 0.6)}, None, aspects) == "-----5-10"
    agreeing = replace(UTTERANCE, emotion="agreement", pitch_level="low")
    table = learn_table([sarcastic, agreeing])
    right, wrong = (
        [
            drawn_support(claims, known_aspects(u, aspects), table, random.Random(seed), aspects)
            for seed in range(100)
        ]
        for u in (agreeing, sarcastic)
    )
    assert {line[6] for line in (*right, *wrong)} == {"9"}, "the low pitch supports agreement, true or not"
    assert sum(int(line[5]) for line in right) > sum(int(line[5]) for line in wrong) + 100
    rows = [[0.1] * 10 for _ in aspects]
    assert heard_aspects(rows, aspects)["emotion"] == pytest.approx([0.5, 0.5])


def test_our_labels_keep_their_digits_and_more_than_ten_have_none() -> None:
    assert aspects_of(["sad", "angry", "calm"]) == aspects_of(ALL_LABELS) == ASPECTS
    aspects = aspects_of([f"kind {letter}" for letter in "abcdefghijk"])
    assert "emotion" not in aspects
    assert listen_target(replace(UTTERANCE, emotion="kind a"), aspects) == "2--41"
    assert "emotion" not in claimed_aspects(RESPONSE.format(answer="kind a"), aspects)
