from __future__ import annotations

import pytest

from rlcore.rewards.choices import answer_part, read_choice

CHOICES = ("Man", "Woman", "A child", "An old man")


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("Woman", 1),
        (" woman.\n", 1),
        ("**Woman**", 1),
        ("B", 1),
        ("b", 1),
        ("(B)", 1),
        ("B. Woman", 1),
        ("B) woman", 1),
        ("**B.** Woman", 1),
        ("The correct answer is B.", 1),
        ("The answer is: (B) Woman", 1),
        ("Option B", 1),
        ("Answer: Woman", 1),
        ("The woman speaks.", 1),  # by its words
        ("I hear a woman speaking.", None),  # `a` is a word of other choices alone: so says MMAU's rule
        ("An old man", 3),  # its words hold those of the first choice
        ("A child", 2),  # an article, no letter
        ("A", 0),
        ("A. child", 0),  # a letter, and no other choice's text
        ("C. Woman", None),  # a letter before another choice's words
        ("a man or a woman", None),
        ("E", None),  # a fifth choice
        ("none of them", None),
        ("", None),
        ("...", None),
    ],
)
def test_a_choice_is_read_by_its_text_its_letter_or_its_words(text: str, index: int | None) -> None:
    assert read_choice(text, CHOICES) == index


def test_choices_that_cannot_be_told_apart_are_none() -> None:
    order = ("first the dog then the cat", "first the cat then the dog")
    assert read_choice("First the cat, then the dog!", order) is None  # punctuation within: not the text
    assert read_choice("first the cat then the dog", order) == 1
    assert read_choice("B", order) == 1
    assert read_choice("rain", ("rain", "Rain")) is None
    assert read_choice("雷声", ("雨声", "雷声")) == 1


def test_notes_that_are_letters_must_agree_with_their_names() -> None:
    notes = ("C", "A", "B")
    assert read_choice("B", notes) is None  # the second by its name, the third by its text
    assert read_choice("A", ("A", "B", "C")) == 0
    assert read_choice("C major", ("C major", "A minor")) == 0
    assert read_choice("7 a.m.", ("7 a.m.", "8 a.m.")) == 0
    assert read_choice("A.M. it is", ("in the evening", "A.M. or so")) is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("<think>It may be A.</think><answer> B </answer>", "B"),
        ("<answer>A</answer> no: <answer>B", "B"),  # cut while it answers
        ("It may be A.</think>\n\nB", "B"),  # the template opened the tag
        ("<think>It may be A, or", None),
        ("<think>a</think>", ""),
        ("B. rain", "B. rain"),
    ],
)
def test_the_part_that_answers(text: str, part: str | None) -> None:
    assert answer_part(text) == part
