from __future__ import annotations

import pytest

from rlcore.rewards.choices import read_choice

CHOICES = ("Man", "Woman", "A child", "An old man")


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("Woman", 1),
        (" woman.\n", 1),
        ("**Woman**", 1),
        ("B", 1),
        ("b)", 1),
        ("B. Woman", 1),
        ("The correct answer is B.", 1),
        ("<think>Not the man: B or D.</think><answer>(B) Woman</answer>", 1),
        ("The woman speaks.", 1),  # by its words
        ("I hear a woman speaking.", None),  # `a` is a word of other choices alone: so says MMAU's rule
        ("An old man", 3),  # its words hold those of the first choice
        ("A child", 2),  # an article, no letter
        ("A", 0),
        ("a man or a woman", None),
        ("<think>It is the woman.", None),  # cut before it answers
        ("E", None),  # a fifth choice
        ("none of them", None),
        ("", None),
        ("...", None),
    ],
)
def test_a_choice_is_read_by_its_letter_its_text_or_its_words(text: str, index: int | None) -> None:
    assert read_choice(text, CHOICES) == index


def test_choices_of_the_same_words_are_told_apart_by_text_and_letter_alone() -> None:
    order = ("first the dog then the cat", "first the cat then the dog")
    assert read_choice("first the cat then the dog", order) == 1
    assert read_choice("B", order) == 1
    assert read_choice("It is first the cat and then the dog", order) is None
    assert read_choice("雷声", ("雨声", "雷声")) == 1
    assert read_choice("caf\u0065\u0301 sounds", ("caf\u00e9", "street")) == 0  # composed or not
