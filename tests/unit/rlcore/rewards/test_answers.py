"""Rewards for right answers: what counts as stated, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from rlcore.errors import ConfigError, DataError
from rlcore.rewards.answers import MultipleChoice, NumberMatch, TextMatch
from rlcore.rewards.extraction import (
    choice_texts,
    final_part,
    plain_words,
    right_letter,
    stated_letter,
    stated_number,
)
from rlcore.rewards.protocol import Reward
from rlcore.rewards.rules import ExactMatch
from rlcore.types import Completion, Group, Prompt, RewardContext

CHOICES = ["happy", "sad", "angry", "very sad"]


def values(reward: Reward, reference: dict[str, Any], *texts: str) -> list[float | str]:
    """Value of each answer, or the error."""
    completions = tuple(
        Completion(token_ids=(1,), logprobs=(0.0,), text=text, finish_reason="stop", policy_version=0)
        for text in texts
    )
    prompt = Prompt(id="p", text="", reference=reference)
    group = Group(prompt=prompt, prompt_token_ids=(1,), completions=completions)
    scores = reward.score(group, RewardContext())
    return [score.value if score.error is None else score.error for score in scores]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("all of it", "all of it"),
        ("<think>no</think> yes", " yes"),
        ("<think>never ending", ""),
        ("<think>a</think>b<think>c", ""),
        ("a</think>b", "b"),
        ("<answer>1</answer> then <answer>2</answer> and more", "2"),
        ("<answer>1</answer> then <answer>2", "1"),
        ("<think><answer>1</answer></think>2", "2"),
        (r"\boxed{1} and \boxed{\frac{2}{3}} and 4", r"\frac{2}{3}"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"<answer>\boxed{1} or so</answer>", "1"),
        ("12 steps\n#### 7 apples\nbye", "7 apples"),
        ("", ""),
    ],
)
def test_the_part_that_states_the_answer(text: str, part: str) -> None:
    assert final_part(text) == part


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42),
        ("42.", 42),
        ("It costs $1,234.50 in all.", 1234.5),
        ("-$5", -5),
        ("3-4", 4),
        ("10 - 3 = 7", 7),
        ("10 -3", 3),
        ("the answer is -4", -4),
        ("x=-5", -5),
        ("(-5)", -5),
        ("\u22123", -3),
        ("\uff14\uff12", 42),
        (".5", 0.5),
        ("+7", 7),
        ("1e3", 1000),
        (r"2 \times 10^{-2}", 0.02),
        ("2\u00d710^5", 200_000),
        ("3/4", 0.75),
        ("1 1/2", 1.5),
        ("-1 1/2", -1.5),
        (r"\frac{3}{4}", 0.75),
        (r"-\dfrac{1}{2}", -0.5),
        ("1{,}000", 1000),
        (r"1\,000", 1000),
        ("1,2345", 2345),
        ("The answer is 12 345.", 12_345),
        ("-1\u202f000\u00a0000", -1_000_000),
        ("3 of 5 100", 5100),
        ("1 2 345", 345),
        ("10^5", 100_000),
        ("-10^{-2}", -0.01),
        ("12 cm^2", 12),
        (r"12\text{ cm}^{2}", 12),
        ("a change of \u20135", -5),
        ("3\u20135", 5),
        ("that is...5", 5),
        ("version 1.2.3", 1.2),
        ("50%", 50),
        ("5km", 5),
        ("H2O", None),
        ("1/0", None),
        ("1e999", None),
        ("9" * 400, None),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number_is_read(text: str, number: float | None) -> None:
    assert stated_number(text) == number
    assert stated_number(f"<think>5 + 5 = 11</think>\n<answer>{text}</answer>") == number


def test_a_number_is_right_within_its_tolerance() -> None:
    gsm8k = {"answer": "She has 16 - 3 = <<16-3=13>>13 left.\n#### 1,300"}
    assert values(NumberMatch(), gsm8k, "1300", "So: $1,300.00.", r"\boxed{1300} of 7", "13", "") == [
        1,
        1,
        1,
        0,
        0,
    ]
    pi = {"answer": 3.14159}
    assert values(NumberMatch(), pi, "3.14159", "3.1416", "3") == [1, 0, 0]
    assert values(NumberMatch(relative=1e-2), pi, "3.14", "3.1", "3.2") == [1, 0, 0]
    assert values(NumberMatch(absolute=0.5), pi, "3.64", "2.65", "3.7") == [1, 1, 0]
    assert values(NumberMatch(), {"answer": 0}, "0", "-0.0", "1e-9") == [1, 1, 0]
    assert values(NumberMatch(), {"answer": [1, 2]}, "2", "1", "3") == [1, 1, 0]
    assert values(NumberMatch("n"), {"n": "many"}, "3") == [
        "prompt 'p': its reference 'n' is no number: 'many'"
    ]
    assert values(NumberMatch(), {"n": 3}, "3") == ["prompt 'p' has no reference 'answer'; it has ['n']"]
    with pytest.raises(ConfigError, match=r"relative, absolute: got -1, 0.0; must be 0 or more"):
        NumberMatch(relative=-1)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        (" (B). ", "B"),
        ("**B**", "B"),
        (r"\boxed{\text{C}}", "C"),
        ("sad", "B"),
        ("Sad.", "B"),
        ("very sad", "D"),
        ("B. sad", "B"),
        ("(B) sad", "B"),
        ("A: happy", "A"),
        ("The answer is B.", "B"),
        ("the answer is option C", "C"),
        ("Final Answer: D) very sad", "D"),
        ("answer: b", "B"),
        ("The correct choice is C", "C"),
        ("I choose option B", "B"),
        ("So it must be D", "D"),
        ("Option A is wrong, so the answer is C", "C"),
        ("Is the answer A? No, the answer is B", "B"),
        ("The answer is (A) because (B) is slow", "A"),
        ("<think>A, or rather B</think><answer>C</answer>", "C"),
        ("The answer is sad.", "B"),
        ("Answer: a very sad", "D"),
        ("Is the answer happy? No, the answer is: sad", "B"),
        ("The answer is 'B'", "B"),
        ("I choose [B]", "B"),
        ("the answer is B sad", "B"),
        ("the answer is A sad", "B"),  # an article, as in "A sad" alone
        # Several are none.
        ("Answer: A sad person", None),
        ("neither A nor B", None),
        ("A or B", None),
        ("A, B", None),
        ("A B C D", None),
        ("AB", None),
        ("answer is B and C", None),
        ("answer is B/C", None),
        ("A. happy B. sad C. angry", None),
        ("option B, or option C", None),
        ("happy or sad", None),
        # No letter of a choice.
        ("The answer is a happy voice", None),
        ("A happy person", None),
        ("it is not B", None),
        ("it isn't B", None),
        ("it isn\u2019t B", None),
        ("E", None),
        ("<think>A", None),
        ("", None),
    ],
)
def test_the_letter_of_a_choice(text: str, letter: str | None) -> None:
    assert stated_letter(text, CHOICES) == letter


def test_the_pronoun_is_no_letter() -> None:
    assert stated_letter("The answer is I think C") == "C"
    assert stated_letter("The answer is I") == stated_letter("(I) loud") == "I"


def test_a_choice_is_named_by_letter_text_or_place() -> None:
    reference = {"answer": "sad", "choices": CHOICES}
    assert values(MultipleChoice(), reference, "B", "sad", "(B)", "A", "B or C") == [1, 1, 1, 0, 0]
    assert values(MultipleChoice(), {"answer": "B", "choices": CHOICES}, "B", "D") == [1, 0]
    assert values(MultipleChoice(), {"answer": 3, "choices": CHOICES}, "D", "C") == [1, 0]
    assert values(MultipleChoice(), {"answer": ["A", "sad"], "choices": CHOICES}, "A", "B", "C") == [1, 1, 0]
    assert values(MultipleChoice("gold"), {"gold": "(c)"}, "C", "the answer is C", "D") == [1, 1, 0]
    (error,) = values(MultipleChoice(), {"answer": "calm", "choices": CHOICES}, "A")
    assert "the answer 'calm' is not one of the 4 choices" in str(error)
    (error,) = values(MultipleChoice(), {"answer": "calm"}, "A")
    assert (
        error == "prompt 'p': its reference 'answer' is 'calm', which is no letter, and it has no 'choices'"
    )
    (error,) = values(MultipleChoice(), {"answer": None, "choices": CHOICES}, "A")
    assert error == "prompt 'p': its reference 'answer' is null; no answer is right"


def test_letters_among_the_texts_of_choices() -> None:
    notes = ["C", "D", "A"]
    assert values(MultipleChoice(), {"answer": "A", "choices": notes}, "A", "the answer is C") == [1, 0]
    assert right_letter(0, notes) == "A" and right_letter("D", notes) == "B"
    with pytest.raises(
        DataError, match="'A' is the text of one choice and the letter of another: give its p"
    ):
        right_letter("A", notes)


def test_a_questions_own_labels_come_before_texts_and_places() -> None:
    labelled = {"text": ["3", "2", "1"], "label": [1, 2, 3]}
    texts, labels = choice_texts(labelled)
    assert [right_letter(answer, texts, labels) for answer in ("1", 1, 3)] == ["A", "A", "C"]
    assert values(MultipleChoice(), {"answer": 1, "choices": labelled}, "A", "C") == [1, 0]
    assert values(MultipleChoice(), {"answer": "y", "choices": {"x": "no", "y": "yes"}}, "B", "A") == [1, 0]


def test_forms_of_choices() -> None:
    assert choice_texts({"A": "x", "B": "y", "C": None}) == (["x", "y"], ["A", "B"])
    assert choice_texts(["a", 2]) == (["a", "2"], ["A", "B"])
    assert choice_texts({"text": ["x", "y"], "label": ["1", "2"]}) == (["x", "y"], ["1", "2"])
    assert choice_texts({"A": "x", "B": "y"}) == (["x", "y"], ["A", "B"])
    assert right_letter("3", ["3", "4"]) == right_letter(3, ["3", "4"]) == "A"  # texts come before places
    assert right_letter("1", ["x", "y"], ["1", "2"]) == "A"
    assert right_letter("yes ", ["No", "Yes"]) == "B"
    for wrong in ("1", True, -1, 2.0, "C", ""):
        with pytest.raises(DataError, match="is not one of the 2 choices"):
            right_letter(wrong, ["x", "y"])
    for choices in (
        "A. x B. y",
        ["x"],
        [["x"], ["y"]],
        {"text": "x"},
        {"text": ["x", "y"], "label": ["1"]},
        {"text": ["x", "y"], "label": 3},
    ):
        with pytest.raises(DataError, match="choices"):
            choice_texts(choices)


def test_texts_are_compared_without_what_does_not_count() -> None:
    assert plain_words("  The Cat's\n  hat! ") == "cats hat"
    assert plain_words("The") == "the" and plain_words("?!") == "?!"
    reference = {"answer": "The Eiffel Tower"}
    right = ("eiffel tower", "The Eiffel Tower.", "<think>Rome?</think><answer>Eiffel  tower</answer>")
    assert values(TextMatch(), reference, *right) == [1, 1, 1]
    assert values(TextMatch(), reference, "It is the Eiffel Tower", "Eiffel", "") == [0, 0, 0]
    assert values(TextMatch(), {"answer": ["NYC", "New York"]}, "new york!", "nyc", "york") == [1, 1, 0]
    assert values(TextMatch(), {"answer": "-5"}, "5", "-5") == [0, 1]
    assert values(TextMatch(), {"answer": []}, "") == [
        "prompt 'p': its reference 'answer' is null; no answer is right"
    ]


def test_exact_match_takes_a_list_of_right_answers() -> None:
    assert values(ExactMatch("a"), {"a": ["x", "y"]}, "Y", "x", "z") == [1, 1, 0]


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece", ["(", "A ", "answer is ", "1", "1 ", "\\boxed{", "<answer>", " ", "10 ^ ", "A,"]
)
def test_no_answer_takes_long_to_read(piece: str) -> None:
    """A policy writes such texts sooner or later; a quadratic search would run for minutes."""
    text = piece * 100_000 + "x"
    assert stated_letter(text, CHOICES) is None
    stated_number(text), plain_words(text)
