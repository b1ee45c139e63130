from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emotion_task.claims.finder import find_claims
from emotion_task.claims.support import learn_table
from emotion_task.cot import TemplateWriter
from emotion_task.facts import stated_facts
from emotion_task.parsing import format_response, parse_response
from emotion_task.records import Utterance
from emotion_task.reward_model.data import (
    GradedExample,
    ListeningExample,
    graded_examples,
    graded_samples,
    read_graded,
    training_examples,
)
from emotion_task.reward_model.error_rates import measure_errors, measured_rates
from emotion_task.reward_model.faults import (
    CONTENT_FAULTS,
    FORM_FAULTS,
    Fault,
    Plan,
    early_label,
    hedge,
    misstate,
    shuffled_sentences,
    shuffled_words,
    text_only,
    wrong_quotation,
)
from emotion_task.reward_model.grades import concluded_emotion, grade_response, judge_messages
from rlcore.errors import ConfigError, DataError

pytestmark = pytest.mark.slow

UTTERANCE = Utterance(
    id="1",
    audio="1.wav",
    text="Wait outside, please",
    emotion="angry",
    gender="male",
    pitch_level="low",
    energy_level="high",
    speed_level="fast",
    intonation="falling",
)


def make(seed: int = 0, **kwargs):
    utterances = [
        Utterance(
            id=str(i),
            audio=f"{i}.wav",
            emotion=("sad", "angry", "happy")[i % 3],
            pitch_level=("low", "normal", "high")[i % 3],
            energy_level=("low", "normal", "high")[i // 3 % 3],
            speed_level=("slow", "normal", "fast")[i // 9 % 3],
            intonation=("rising", "falling", "flat")[i // 27 % 3],
            gender=("male", "female")[i % 2],
        )
        for i in range(250)
    ]
    table = learn_table(utterances)
    return utterances, list(graded_examples(utterances, TemplateWriter(), seed=seed, table=table, **kwargs))


def test_grades_cover_the_scale_and_agree_with_the_rules() -> None:
    utterances, examples = make(per_utterance=4)
    by_id, table = {u.id: u for u in utterances}, learn_table(utterances)
    assert len(examples) == 1000
    factual = Counter(example.grades[0] for example in examples)
    assert min(factual[grade] for grade in (1, 2, 3, 4, 5)) > 150
    for column in zip(*(example.grades for example in examples), strict=True):
        assert {1, 5} < set(column) and Counter(column)[5] < 900
    # Words in disorder and foreign text are faults that only their maker knows of.
    plain = [example for example in examples if example.grades[3] > 2]
    agreeing = 0
    for example in plain:
        graded = grade_response(example.response, by_id[example.id.split("#")[0]], table)
        agreeing += example.grades == tuple(graded.values())
        assert len(example.target) == 5 and set(example.target) <= set("12345")
    assert len(plain) > 700 and agreeing > 0.98 * len(plain)


TABLE = learn_table(
    replace(UTTERANCE, emotion=emotion, pitch_level=pitch, energy_level=energy, speed_level=speed)
    for emotion, pitch, energy, speed in (
        ("angry", "low", "high", "fast"),
        ("angry", "high", "high", "fast"),
        ("sad", "low", "low", "slow"),
        ("sad", "low", "low", "normal"),
    )
)


def plan_of(utterance: Utterance = UTTERANCE, **changes: Any) -> Plan:
    assert utterance.emotion is not None
    plan = Plan(
        facts=stated_facts(utterance),
        truth=stated_facts(utterance),
        speaker_emotion=utterance.emotion,
        emotion=utterance.emotion,
        answer=utterance.emotion,
        table=TABLE,
        text=utterance.text,
        text_emotion="sad",
    )
    return replace(plan, **changes)


def lowered(fault: Fault, quote: str | None = None) -> dict[str, int]:
    plan = plan_of(quote=quote)
    return {name: 5 - grade for name, grade in fault(plan, random.Random(0)).grades.items() if grade < 5}


def test_each_fault_lowers_known_dimensions_by_known_amounts() -> None:
    amounts = {fault.__name__: lowered(fault, "wait outside") for fault in (*CONTENT_FAULTS, *FORM_FAULTS)}
    assert amounts == {
        "wrong_claim": {"factual": 1},
        "missing_claim": {"completeness": 2},
        "nothing_claimed": {"factual": 4, "interpretation": 2, "completeness": 4},
        "wrong_emotion": {"interpretation": 4},
        "bent_claims": {"factual": 1, "interpretation": 2},
        "text_only": {"factual": 4, "interpretation": 4, "completeness": 4},
        "contradiction": {"interpretation": 4},
        "unnamed_emotion": {"interpretation": 3},
        "wrong_quotation": {"factual": 1},
        "invented_detail": {"factual": 1},
        "long_prose": {},
        "early_label": {"structure": 2},
        "repeated_sentence": {"fluency": 2},
        "shuffled_words": {"fluency": 3},
        "shuffled_sentences": {"structure": 2},
        "broken_schema": {"interpretation": 4, "structure": 3},
        "foreign_text": {"fluency": 4, "structure": 4},
        "foreign_ending": {"interpretation": 4, "fluency": 4, "structure": 4},
    }
    assert lowered(wrong_quotation) == {}


@pytest.mark.parametrize(
    ("think", "answer", "interpretation"),
    [
        ("The speech is fast and the energy is high. So angry.", "angry", 5),
        ("The speech is slow and the energy is low. So angry.", "angry", 3),  # right, but for no reason
        ("The speech is slow and the energy is low. So sad.", "sad", 3),  # reasoned, but wrong
        ("The speech is fast and the energy is high. So sad.", "sad", 1),
        ("The energy is high or low. So angry.", "angry", 3),  # claims that deny themselves
        ("So angry.", "angry", 3),
        (
            "The speech is fast and the energy is high. So happy.",
            "happy",
            1,
        ),  # no label of the table: no answer
        ("The speech is fast and the energy is high.", "angry", 2),
        ("The speech is fast and the energy is high. So angry.", "sad", 1),
    ],
)
def test_interpretation_asks_whether_the_claims_support_the_emotion(
    think: str, answer: str, interpretation: int
) -> None:
    graded = grade_response(format_response(think, answer), UTTERANCE, TABLE)
    assert graded["interpretation"] == interpretation


def test_wrong_levels_are_a_step_off_or_opposite() -> None:
    rng = random.Random(0)
    drawn = {
        (name, opposite): {misstate(plan_of(), name, rng, opposite).facts[name] for _ in range(40)}
        for name in ("pitch_level", "intonation", "gender")
        for opposite in (False, True)
    }
    assert drawn["pitch_level", False] == {"normal", "none"} and drawn["pitch_level", True] == {"high"}
    assert drawn["intonation", True] == {"rising"} and "rising" not in drawn["intonation", False]
    assert drawn["gender", False] == drawn["gender", True] == {"female"}


def test_errors_are_drawn_as_often_as_a_policy_makes_them() -> None:
    """Measured again, made responses have the rates that they were drawn with."""
    utterances, both = make(seed=5, per_utterance=16, rates=measured_rates())
    by_id = {u.id: u for u in utterances}
    made = [(by_id[name], e.response) for e in both for name, index in [e.id.split("#")] if int(index) % 2]
    assert len(made) == 2000
    due, found = measured_rates(), measure_errors(made, learn_table(utterances))
    for name in ("pitch_level", "energy_level", "speed_level"):
        for kind, share in due.claims[name].items():
            # Claims that are bent to a wrong emotion come on top.
            assert found.claims[name][kind] == pytest.approx(share, abs=0.08), (name, kind)
    for name in ("contradiction", "unnamed_emotion"):
        assert found.emotion[name] == pytest.approx(due.emotion[name], abs=0.03)
    wrong = ("wrong_emotion", "bent_claims", "text_only")
    assert sum(found.emotion[n] for n in wrong) == pytest.approx(sum(due.emotion[n] for n in wrong), abs=0.04)
    assert 0 < found.form["early_label"] < 0.03 and 0 < found.form["long_prose"] < 0.03


def test_a_wrong_quotation_is_wrong_however_long_the_transcript() -> None:
    spoken = " ".join(f"word{i}" for i in range(20))
    plan = plan_of(facts={}, truth={}, quote=spoken)
    rng = random.Random(0)
    for _ in range(20):
        trace = wrong_quotation(plan, rng).write(TemplateWriter(), rng)
        quoted = trace.split('"')[1]
        assert quoted not in spoken, trace


def test_what_is_not_there_is_not_shuffled() -> None:
    rng = random.Random(0)
    plan = plan_of(facts={}, truth={})
    for fault in (shuffled_words, shuffled_sentences, early_label):
        assert fault(plan, rng) is plan
    assert text_only(plan_of(text_emotion=None), rng) == plan_of(text_emotion=None)
    assert hedge(plan_of(), "gender", rng) == plan_of() == hedge(plan_of(), "intonation", rng)


def test_facts_cannot_be_graded_from_the_text_alone() -> None:
    """The same claims are right of one voice and wrong of another: over the data, a claim's value says
    next to nothing about its grade."""
    _, examples = make()
    by_claim: dict[str, list[int]] = {}
    for example in examples:
        pitch = find_claims(example.response).get("pitch_level")
        by_claim.setdefault(str(pitch), []).append(example.grades[0])
    means = [
        sum(values) / len(values) for name, values in by_claim.items() if name in ("low", "normal", "high")
    ]
    assert max(means) - min(means) < 0.35


def test_data_are_a_function_of_the_seed() -> None:
    assert make(seed=3)[1] == make(seed=3)[1]
    assert [e.response for e in make(seed=3)[1]] != [e.response for e in make(seed=4)[1]]


def test_samples_of_a_policy_are_graded_by_the_same_rules() -> None:
    (example,) = graded_samples([(UTTERANCE, "no schema at all")], TABLE)
    assert example.grades == (1, 1, 1, 4, 2) and example.id == "1#sample0"
    assert example.messages == judge_messages("no schema at all", "-------10")
    (empty,) = graded_samples([(UTTERANCE, "\n")], TABLE)
    assert empty.grades == (1, 1, 1, 1, 1)


def test_grades_of_others_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "graded.jsonl"
    grades = {"factual": 4, "interpretation": 5, "completeness": 3, "fluency": 5, "structure": 2}
    row = {"id": "1", "response": "The pitch is low.", "grades": grades}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (example,) = read_graded(path, [UTTERANCE], TABLE)
    assert (example.grades, example.audio, example.response) == (
        (4, 5, 3, 5, 2),
        "1.wav",
        "The pitch is low.",
    )
    for bad in ({"id": "2"}, {"grades": grades | {"fluency": 6}}, {"grades": {"fluency": 5}}):
        path.write_text(json.dumps(row) + "\n" + json.dumps(row | bad) + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"graded.jsonl:2: not a graded response"):
            read_graded(path, [UTTERANCE], TABLE)


def test_training_mixes_listening_and_grading() -> None:
    utterances, _ = make()
    others = list(graded_samples([(UTTERANCE, "no schema at all")], TABLE))
    examples = training_examples(
        utterances,
        TemplateWriter(),
        600,
        seed=1,
        table=TABLE,
        listening=0.5,
        per_utterance=1,
        imported=others,
    )
    heard = [example for example in examples if isinstance(example, ListeningExample)]
    assert len(examples) == 600 and len(heard) == 300
    assert len({example.id for example in heard}) == 250
    assert sum(example.id == others[0].id for example in examples) == 2  # 300 of 1 + 250, gone round again
    assert [e.id for e in examples[:50]] != sorted(e.id for e in examples[:50])
    bare = [Utterance(id=str(i), audio="a.wav", emotion=("sad", "angry")[i % 2]) for i in range(4)]
    with pytest.raises(DataError, match="4 utterances, none with an emotion and prosody"):
        training_examples(bare, TemplateWriter(), 10, seed=1, table=TABLE, listening=0.5, per_utterance=1)


def test_one_emotion_leaves_nothing_to_answer_wrongly() -> None:
    with pytest.raises(ConfigError, match="at least two emotions"):
        list(graded_examples([UTTERANCE], TemplateWriter(), seed=0, table=learn_table([UTTERANCE])))


def test_responses_are_graded_by_a_set_of_labels_of_ones_own() -> None:
    utterance = replace(UTTERANCE, emotion="sarcasm")
    labels = ["sarcasm", "agreement"]
    utterances = [
        replace(utterance, id=label, emotion=label, text_emotion="agreement", pitch_level=pitch)
        for label, pitch in zip(labels, ("low", "high"), strict=True)
    ]
    table = learn_table(utterances, labels)
    grades = {
        (pitch, answer): grade_response(
            format_response(f"The pitch is {pitch}. This points to {answer}.", answer), utterance, table
        )["interpretation"]
        for pitch in ("low", "high")
        for answer in ("sarcasm", "agreement", "sad")
    }
    assert [grades["low", answer] for answer in ("sarcasm", "agreement", "sad")] == [5, 1, 1]
    assert [grades["high", answer] for answer in ("sarcasm", "agreement", "sad")] == [3, 3, 1]
    early = format_response("Sarcasm it is. The pitch is low.", "sarcasm")
    assert grade_response(early, utterance, table)["structure"] == 3
    assert concluded_emotion("Rather than agreement, this is sarcasm.", labels) == "sarcasm"

    examples = training_examples(
        utterances, TemplateWriter(), 400, seed=0, table=table, listening=0.5, per_utterance=100
    )
    heard = [e for e in examples if isinstance(e, ListeningExample)]
    assert {e.target[-1] for e in heard} == {"0", "1"}
    answered = [e for e in examples if isinstance(e, GradedExample) and "</answer>" in e.response]
    assert {e.heard[5] for e in answered} > {"-", "0", "9"} and {e.heard[6] for e in answered} == {*"-09"}
    said = [(e.id.split("#")[0], parsed.answer) for e in answered if (parsed := parse_response(e.response))]
    assert {*said} == {(of, answer) for of in labels for answer in labels}
    texts = ["Somebody laughs. This is agreement.", "Somebody laughs. This is sad."]
    rates = [
        measure_errors([(utterances[0], format_response(t, t.split()[-1][:-1]))], table).form for t in texts
    ]
    assert [rate["broken_schema"] for rate in rates] == [0, 1]
