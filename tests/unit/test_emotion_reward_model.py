from __future__ import annotations

from collections import Counter

import pytest

from emotion_task.cot import TemplateWriter
from emotion_task.evaluation.claims import find_claims
from emotion_task.parsing import format_response
from emotion_task.records import Utterance
from emotion_task.reward_model.data import graded_examples, graded_samples
from emotion_task.reward_model.grades import DIMENSIONS, grade_response, judge_messages, weighted
from rlcore.errors import ConfigError

UTTERANCE = Utterance(
    id="1",
    audio="1.wav",
    emotion="angry",
    gender="male",
    pitch_level="low",
    energy_level="high",
    speed_level="fast",
    intonation="falling",
)
GOOD = "A man speaks. The pitch is low and the energy is high. I hear fast speech and falling intonation."


def grades(think: str, answer: str = "angry") -> tuple[int, ...]:
    graded = grade_response(f"<think>{think}</think><answer>{answer}</answer>", UTTERANCE)
    return tuple(graded[d.name] for d in DIMENSIONS)


@pytest.mark.parametrize(
    ("think", "answer", "expected"),
    [
        (f"{GOOD} So the emotion is angry.", "angry", (5, 5, 5, 5)),
        (f"{GOOD} So the emotion is angry.", "sad", (5, 1, 5, 5)),
        (f"{GOOD} So the emotion is sad.", "sad", (5, 3, 5, 5)),
        (GOOD, "angry", (5, 2, 5, 5)),
        (f"So the emotion is angry. {GOOD}", "angry", (5, 5, 5, 3)),
        (f"{GOOD} A man speaks. So the emotion is angry.", "angry", (5, 5, 5, 3)),
        (f"{GOOD} So the the emotion is angry.", "angry", (5, 5, 5, 4)),
        (f"{GOOD} So the emotion is angry", "angry", (5, 5, 5, 4)),
        ("The pitch is high and the energy is low. This points to angry.", "angry", (3, 5, 1, 5)),
        ("The pitch is low. This points to angry.", "angry", (5, 5, 1, 5)),
        ("This points to angry.", "angry", (1, 5, 1, 5)),
    ],
)
def test_rules_grade_responses(think: str, answer: str, expected: tuple[int, ...]) -> None:
    assert grades(think, answer) == expected


def test_a_broken_schema_costs_fluency_and_interpretation() -> None:
    graded = grade_response(f"{GOOD} So the emotion is angry.", UTTERANCE)
    assert graded == {"factual": 5, "interpretation": 1, "completeness": 5, "fluency": 2}


def test_what_was_not_measured_is_not_denied() -> None:
    utterance = Utterance(id="2", audio="2.wav", emotion="sad", pitch_level="low")
    think = "A woman speaks. The pitch is low and the energy is high. This points to sad."
    assert grade_response(format_response(think, "sad"), utterance)["factual"] == 5


def test_the_reward_is_the_weighted_mean_of_grades() -> None:
    assert sum(d.weight for d in DIMENSIONS) == pytest.approx(1.0)
    assert weighted((5, 5, 5, 5)) == pytest.approx(1.0)
    assert weighted((1, 5, 3, 5)) == pytest.approx((0.4 * 1 + 0.2 * 5 + 0.2 * 3 + 0.2 * 5) / 5)


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
    return utterances, list(graded_examples(utterances, TemplateWriter(), seed=seed, **kwargs))


def test_grades_cover_the_scale_and_agree_with_the_rules() -> None:
    utterances, examples = make()
    by_id = {u.id: u for u in utterances}
    assert len(examples) == 1000
    factual = Counter(example.grades[0] for example in examples)
    assert min(factual[grade] for grade in (1, 2, 3, 4, 5)) > 80
    assert set(example.grades[1] for example in examples) == {1, 3, 5}
    agreeing = 0
    for example in examples:
        graded = grade_response(example.response, by_id[example.id.split("#")[0]])
        agreeing += example.grades == tuple(graded.values())
        assert len(example.target) == 4 and set(example.target) <= set("12345")
    # Words in disorder are a fault that only its maker knows of.
    assert agreeing > 900


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
    (example,) = graded_samples([(UTTERANCE, "no schema at all")])
    assert example.grades == (1, 1, 1, 1) and example.id == "1#sample0"
    assert example.messages == judge_messages("no schema at all")


def test_one_emotion_leaves_nothing_to_answer_wrongly() -> None:
    with pytest.raises(ConfigError, match="at least two emotions"):
        list(graded_examples([UTTERANCE], TemplateWriter(), seed=0))
