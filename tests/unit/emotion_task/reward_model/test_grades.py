"""A response is graded by rules: facts, interpretation, completeness, fluency, structure."""

from __future__ import annotations

from pathlib import Path

import pytest

from emotion_task.claims.labelled import read_labelled
from emotion_task.cot.checks import check_trace
from emotion_task.parsing import format_response
from emotion_task.records import Utterance
from emotion_task.reward_model.grades import DIMENSIONS, concluded_emotion, grade_response

pytestmark = pytest.mark.slow

FREE = Path(__file__).parents[3] / "data" / "claims_free.jsonl"
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
GOOD = "A man speaks. The pitch is low and the energy is high. I hear fast speech and falling intonation."


def grades(think: str, answer: str = "angry") -> tuple[int, ...]:
    graded = grade_response(f"<think>{think}</think><answer>{answer}</answer>", UTTERANCE)
    return tuple(graded[d.name] for d in DIMENSIONS)


@pytest.mark.parametrize(
    ("think", "answer", "expected"),
    [
        (f"{GOOD} So the emotion is angry.", "angry", (5, 5, 5, 5, 5)),
        (f"{GOOD} So the emotion is angry.", "sad", (5, 1, 5, 5, 5)),
        (f"{GOOD} So the emotion is sad.", "sad", (5, 3, 5, 5, 5)),
        (GOOD, "angry", (5, 2, 5, 5, 5)),
        (f"So the emotion is angry. {GOOD}", "angry", (5, 5, 5, 5, 3)),
        (f"{GOOD} A man speaks. So the emotion is angry.", "angry", (5, 5, 5, 3, 5)),
        (f"{GOOD} So the the emotion is angry.", "angry", (5, 5, 5, 4, 5)),
        (f"{GOOD} So the emotion is angry", "angry", (5, 5, 5, 4, 5)),
        (f'{GOOD} The words are "not here". So the emotion is angry.', "angry", (4, 5, 5, 5, 5)),
        (f'{GOOD} The words are "wait outside". So the emotion is angry.', "angry", (5, 5, 5, 5, 5)),
        ("The pitch is high and the energy is low. This points to angry.", "angry", (3, 5, 1, 5, 5)),
        ("The pitch is low. This points to angry.", "angry", (5, 5, 1, 5, 5)),
        ("This points to angry.", "angry", (1, 5, 1, 5, 5)),
    ],
)
def test_rules_grade_responses(think: str, answer: str, expected: tuple[int, ...]) -> None:
    assert grades(think, answer) == expected


def test_a_broken_schema_costs_structure_and_interpretation() -> None:
    graded = grade_response(f"{GOOD} So the emotion is angry.", UTTERANCE)
    assert graded == {"factual": 5, "interpretation": 1, "completeness": 5, "fluency": 5, "structure": 2}


def test_what_was_not_measured_is_not_denied() -> None:
    utterance = Utterance(id="2", audio="2.wav", emotion="sad", pitch_level="low")
    think = "A woman speaks. The pitch is low and the energy is high. This points to sad."
    assert grade_response(format_response(think, "sad"), utterance)["factual"] == 5


def test_the_weights_of_the_dimensions_sum_to_one() -> None:
    assert sum(d.weight for d in DIMENSIONS) == pytest.approx(1.0)


def test_rivals_that_reasoning_weighs_cost_nothing() -> None:
    think = (
        "At first one might suspect sadness. A man speaks. The pitch is low, the energy is high. The speech "
        "is fast, not slow as in sadness, and the intonation falls. This is anger rather than fear."
    )
    assert concluded_emotion(think) == "angry"
    assert grades(think) == (5, 5, 5, 5, 5)
    assert grades(think, "fear")[1] == 1


def test_denied_levels_are_spoken_of() -> None:
    think = (
        "A man speaks. The voice is not weak. The pitch is low. The speech is fast. The tune falls. So angry."
    )
    assert grades(think) == (5, 5, 5, 5, 5)


@pytest.mark.parametrize("split", ["free_develop", "free_held_out"])
def test_faithful_prose_is_graded_and_accepted_as_such(split: str) -> None:
    years = {"child": 8, "young": 25, "middle-aged": 50, "elderly": 70}
    graded, num_accepted = [], 0
    for row in read_labelled(FREE):
        emotion = concluded_emotion(row["text"])
        if row["split"] != split or row["style"] != "prose" or len(row["claims"]) < 4 or emotion is None:
            continue
        said = [value for name, value in row["claims"] if name in ("quoted_words", "stressed_words")]
        facts = {name: value for name, value in row["claims"] if not name.endswith("_words")}
        utterance = Utterance(
            id="1",
            audio="1.wav",
            emotion=emotion,
            text=" ".join(said) or None,
            stressed_words=[value for name, value in row["claims"] if name == "stressed_words"],
            age_years=years.get(facts.pop("age_level", "")),
            **facts,
        )
        response = format_response(row["text"], emotion)
        graded.append(grade_response(response, utterance))
        num_accepted += not check_trace(response, utterance, min_words=20, max_words=200)
    assert len(graded) >= 15
    for name in ("factual", "interpretation", "completeness", "fluency", "structure"):
        assert sum(grade[name] for grade in graded) / len(graded) >= 4.5, name
    assert num_accepted >= 0.8 * len(graded)
