"""Reading answers: what is stated is found wherever it stands, and nothing is paid for hedging."""

from __future__ import annotations

from string import ascii_uppercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcore.errors import DataError
from rlcore.rewards.extraction import final_part, plain_words, right_letter, stated_letter, stated_number

NUMBERS = st.one_of(st.integers(-(10**9), 10**9), st.decimals(-(10**6), 10**6, places=3).map(float))
WORDS = st.text("abcdefghijklmnopqrstuvwxyz ,.", max_size=40)
FORMS = (
    "{}",
    "<think>7</think>{}",
    "<answer>{}</answer> 8",
    "#### {}",
    "so\n#### {}\n9",
    "it is {}.",
    r"\boxed{{{}}}",
)
LETTER_FORMS = ("{}", "({})", "**{}**", "{}.", "The answer is {}.", "Answer: ({})", "<answer>{}</answer>")


@given(NUMBERS, st.sampled_from(FORMS), WORDS)
def test_a_number_is_found_in_every_form(number: float, form: str, words: str) -> None:
    for written in (f"{number}", f"{number:,}"):
        assert stated_number(f"{words}\n{form.format(written)}") == float(number)


@given(st.integers(2, 10), st.data(), st.sampled_from(LETTER_FORMS))
def test_a_letter_is_found_in_every_form_and_no_second_one_beside_it(
    count: int, data: st.DataObject, form: str
) -> None:
    choices = [f"choice number {i}" for i in range(count)]
    first, second = data.draw(
        st.lists(st.sampled_from(ascii_uppercase[:count]), min_size=2, max_size=2, unique=True)
    )
    assert stated_letter(form.format(first), choices) == first
    assert stated_letter(choices[ascii_uppercase.index(first)].upper(), choices) == first
    for hedge in (f"{first} or {second}", f"{first}, {second}", f"{first} and {second}", f"{first}/{second}"):
        assert stated_letter(form.format(hedge), choices) is None
    assert stated_letter(form.format(ascii_uppercase[count]), choices) is None


@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    assert final_part(text) in (text, "") or final_part(text) in text
    letter = stated_letter(text, ["x", "y", "z"])
    assert letter is None or letter in "ABC"
    stated_number(text)
    assert plain_words(plain_words(text)) == plain_words(text)


@given(
    st.lists(
        st.text(min_size=1, max_size=10).map(str.strip).filter(bool), min_size=2, max_size=10, unique=True
    )
)
def test_a_right_answer_by_text_is_its_own_letter(choices: list[str]) -> None:
    letters = ascii_uppercase[: len(choices)]
    for i, choice in enumerate(choices):
        if len(choice) == 1 and choice in letters and letters[i] != choice:  # another choice's letter
            with pytest.raises(DataError, match="the text of one choice and the letter of another"):
                right_letter(choice, choices)
        else:
            assert right_letter(choice, choices) == letters[i]
