"""What does not change the meaning does not change the claims; what does, does."""

from __future__ import annotations

import random
import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_task.claims.check import check_claims, total
from emotion_task.claims.finder import CONTRADICTORY, find_claims, read_claims
from emotion_task.claims.labelled import read_labelled
from emotion_task.facts import VALUES
from emotion_task.records import AGE_LEVELS

TEXTS = [r["text"] for r in read_labelled(Path(__file__).parent.parent / "data" / "claims.jsonl")]
LEVELS = {
    "pitch": ("high", "low", "elevated", "deep", "average"),
    "volume": ("high", "low", "soft", "considerable", "moderate"),
    "tempo": ("quick", "slow", "hurried", "sluggish", "typical"),
    "intonation": ("rising", "falling", "flat", "expressive", "monotonous"),
}
UNRELATED = (
    "Her mood is low.",
    "The speaker has high hopes.",
    "Time flies fast.",
    "He wears a loud shirt.",
    "The room is cold and the tea is getting old.",
    "Anger is rising in the crowd.",
    "I will now weigh the evidence.",
)
prose = st.sampled_from([text for text in TEXTS if not re.search(r"\d|\s[-\u2013]|\n", text)])


@settings(max_examples=150, deadline=None)
@given(prose, st.integers(0))
def test_white_space_and_case_change_nothing(text: str, seed: int) -> None:
    rng = random.Random(seed)
    changed = re.sub(r" ", lambda _: rng.choice((" ", "  ", "\t", "\n", " \n ")), text)
    assert read_claims(changed) == read_claims(text)
    assert read_claims(text.upper()) == read_claims(text) == read_claims(text.lower())


@settings(max_examples=150, deadline=None)
@given(prose, st.sampled_from(UNRELATED), st.booleans())
def test_an_unrelated_sentence_changes_nothing_about_prosody(text: str, sentence: str, first: bool) -> None:
    both = f"{sentence} {text}" if first else f"{text} {sentence}"
    without = {name: value for name, value in find_claims(text).items() if name != "gender"}
    assert {name: value for name, value in find_claims(both).items() if name != "gender"} == without


claims = st.sampled_from([(noun, word) for noun, words in LEVELS.items() for word in words])


@given(claims, st.sampled_from(("not ", "not especially ", "never ", "hardly ", "by no means ")))
def test_a_negation_removes_the_claim_in_both_orders(claim: tuple[str, str], negation: str) -> None:
    noun, word = claim
    after, before = f"The {noun} is {word}.", f"There is a {word} {noun}."
    assert find_claims(after) == find_claims(before) != {}
    assert find_claims(f"The {noun} is {negation}{word}.") == {}
    assert find_claims(f"There is no {word} {noun}.") == {}


@given(st.lists(claims, min_size=1, max_size=4, unique_by=lambda claim: claim[0]), st.permutations(range(4)))
def test_the_order_of_sentences_is_free(chosen: list[tuple[str, str]], order: list[int]) -> None:
    sentences = [f"The {noun} is {word}." for noun, word in chosen]
    shuffled = [sentences[i] for i in order if i < len(sentences)]
    assert find_claims(" ".join(shuffled)) == find_claims(" ".join(sentences))
    assert len(find_claims(" ".join(sentences))) == len(chosen)


@given(claims, st.sampled_from(("rather ", "somewhat ", "perhaps ", "noticeably ", "a bit ")))
def test_a_hedge_changes_nothing(claim: tuple[str, str], hedge: str) -> None:
    noun, word = claim
    assert find_claims(f"The {noun} is {hedge}{word}.") == find_claims(f"The {noun} is {word}.")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    for name, value in find_claims(text).items():
        assert value == CONTRADICTORY or name not in VALUES or value in VALUES[name]


@settings(max_examples=150, deadline=None)
@given(prose, st.fixed_dictionaries({}, optional={n: st.sampled_from(v) for n, v in VALUES.items()}))
def test_tallies_are_consistent(text: str, reference: dict[str, str]) -> None:
    tally = total(check_claims(read_claims(text), reference))
    assert tally.num_right <= min(tally.num_checked, tally.num_facts)
    assert tally.num_right + tally.num_contradictions <= tally.num_checked
    assert tally.num_facts == len(reference)


DENIALS = (
    "The {noun} is not that {word}.",
    "The {noun} isn't all that {word}.",
    "The {noun} is not so {word} as to be striking.",
    "The {noun} is anything but {word}.",
    "The {noun} is less {word} than usual.",
    "The {noun} is not as {word} as usual.",
    "The {noun} fails to be {word}.",
    "It is not true that the {noun} is {word}.",
    "It would be wrong to say that the {noun} is {word}.",
    "I wouldn't call the {noun} {word}.",
    "No way is the {noun} {word}.",
    "Is the {noun} {word}? No.",
    "Nobody would say that the {noun} is {word}.",
)
adjectives = st.sampled_from(
    [(noun, word) for noun, listed in LEVELS.items() for word in listed if word not in ("rising", "falling")]
)


@given(adjectives, st.sampled_from(DENIALS))
def test_a_denied_claim_never_keeps_its_sign(claim: tuple[str, str], denial: str) -> None:
    noun, word = claim
    ((name, value),) = find_claims(f"The {noun} is {word}.").items()
    assert find_claims(denial.format(noun=noun, word=word)).get(name) != value


@given(
    st.integers(3, 105),
    st.sampled_from(("A man of about {n}.", "A {n}-year-old man.", "He is {n} years old.")),
)
def test_an_age_in_years_is_its_group(years: int, sentence: str) -> None:
    group = next(name for name, below in AGE_LEVELS.items() if years < below)
    assert find_claims(sentence.format(n=years)) == {"gender": "male", "age_level": group}
