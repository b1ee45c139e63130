"""Splits by speaker: whole speakers, nobody in two parts, and as near to the shares as can be."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_task.corpora.reading.splits import parse_fractions, split_by_speaker
from emotion_task.records import Utterance
from rlcore.errors import ConfigError, DataError


def spoken(sizes: list[int], nameless: int = 0) -> list[Utterance]:
    speakers = [f"s{at}" for at, size in enumerate(sizes) for _ in range(size)] + [None] * nameless
    return [Utterance(id=str(at), audio=f"{at}.wav", speaker=s) for at, s in enumerate(speakers)]


SIZES = st.lists(st.integers(1, 12), min_size=3, max_size=8)


@given(
    SIZES,
    st.sampled_from(["0.8/0.2", "0.5/0.5", "0.05/0.95", "0.8/0.1/0.1", "0.34/0.33/0.33", "0.2/0.25/0.55"]),
    st.integers(0, 3),
)
def test_speakers_stay_whole_and_shares_are_near(sizes: list[int], shares: str, nameless: int) -> None:
    fractions, rows = parse_fractions(shares), spoken(sizes, nameless)
    found = split_by_speaker(rows, fractions)
    assert [(u.id, u.speaker) for u in found] == [(u.id, u.speaker) for u in rows]
    part_of = {u.speaker: u.split for u in found}
    assert all(u.split == part_of[u.speaker] for u in found) and part_of.get(None) is None
    parts = ("train", "eval") if len(fractions) == 2 else ("train", None, "eval")
    assert set(part_of[s] for s in part_of if s is not None) == set(parts)
    # No other choice of speakers for eval that leaves one for each other part is nearer.
    target = fractions[-1] * sum(sizes)
    size = sum(u.split == "eval" for u in found)
    possible = (
        sum(chosen)
        for count in range(1, len(sizes) - len(parts) + 2)
        for chosen in itertools.combinations(sizes, count)
    )
    assert abs(size - target) == pytest.approx(min(abs(other - target) for other in possible))


@given(SIZES, st.randoms(use_true_random=False))
def test_the_order_of_the_list_changes_nothing(sizes: list[int], order: random.Random) -> None:
    rows = spoken(sizes)
    expected = {u.id: u.split for u in split_by_speaker(rows, (0.8, 0.1, 0.1))}
    order.shuffle(rows)
    assert {u.id: u.split for u in split_by_speaker(rows, (0.8, 0.1, 0.1))} == expected


def test_many_speakers_come_within_an_utterance() -> None:
    sizes = [random.Random(seed).randint(1, 400) for seed in range(500)]
    found = Counter(u.split for u in split_by_speaker(spoken(sizes), (0.8, 0.1, 0.1)))
    assert abs(found["eval"] - 0.1 * sum(sizes)) <= 1 and abs(found[None] - 0.1 * sum(sizes)) <= 1


@pytest.mark.parametrize(
    "wrong", ["0.8", "0.8/0.3", "1/0", "a/b", 0.8, [0.5, 0.2, 0.2, 0.1], "nan/nan", [True]]
)
def test_shares_that_are_none(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"split_by_speaker: got .*sum to 1"):
        parse_fractions(wrong)


def test_fewer_speakers_than_parts() -> None:
    with pytest.raises(DataError, match="split_by_speaker: 2 speakers for 3 parts"):
        split_by_speaker(spoken([5, 5], nameless=3), (0.8, 0.1, 0.1))
