"""Clip-Cov against the paper's formula, written out token by token."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcore.algorithms.covariance import clip_cov, kl_cov

NATS, ADVANTAGE = st.floats(-5, 0, width=16), st.floats(-3, 3, width=16)


@st.composite
def batches(draw):
    """Log-probabilities and advantages of up to five sequences, empty ones among them."""
    lengths = draw(st.lists(st.integers(0, 6), max_size=5))
    rows = [
        [np.array(draw(st.lists(of, min_size=n, max_size=n))) for n in lengths] for of in (NATS, ADVANTAGE)
    ]
    return rows[0], rows[1]


def in_band(logprobs, advantages, low: float, high: float) -> list[list[bool]]:
    everything = [[float(x) for row in rows for x in row] for rows in (logprobs, advantages)]
    if not everything[0]:
        return [[] for _ in logprobs]
    mean_l, mean_a = (statistics.fmean(values) for values in everything)
    return [
        [low < (x - mean_l) * (a - mean_a) < high for x, a in zip(*pair, strict=True)]
        for pair in zip(logprobs, advantages, strict=True)
    ]


@given(batches(), st.floats(0, 1))
def test_a_share_of_the_tokens_is_drawn_from_the_band(batch, share):
    drawn = clip_cov(*batch, share=share, bounds=(0.3, 2.1))
    eligible = in_band(*batch, 0.3, 2.1)
    assert [len(row) for row in drawn] == [len(row) for row in eligible]
    assert all(e for d, of_row in zip(drawn, eligible, strict=True) for e in np.array(of_row, bool)[d])
    num_tokens, num_eligible = sum(map(len, drawn)), sum(map(sum, eligible))
    expected = min(max(math.floor(share * num_tokens), 1), num_eligible)
    assert sum(int(row.sum()) for row in drawn) == expected
    again = clip_cov(*batch, share=share, bounds=(0.3, 2.1))
    assert [row.tolist() for row in again] == [row.tolist() for row in drawn]


@given(batches(), st.data())
def test_with_a_share_of_one_all_of_the_band_goes_in_any_order_and_at_any_offset(batch, data):
    logprobs, advantages = batch
    whole = clip_cov(logprobs, advantages, share=1.0, bounds=(0.3, 2.1))
    assert [row.tolist() for row in whole] == in_band(*batch, 0.3, 2.1)
    order = data.draw(st.permutations(range(len(logprobs))))
    moved = [[rows[i] + offset for i in order] for rows, offset in ((logprobs, -2.0), (advantages, 0.5))]
    got = clip_cov(*moved, share=1.0, bounds=(0.3, 2.1))
    assert [row.tolist() for row in got] == [whole[i].tolist() for i in order]


def test_by_hand():
    logprobs = [np.array([-1.0, -5.0]), np.array([-1.0, -5.0])]
    advantages = [np.array([1.0, 1.0]), np.array([-1.0, -1.0])]
    # Means -3 and 0: covariances 2, -2 and -2, 2.
    drawn = clip_cov(logprobs, advantages, share=1.0, bounds=(1.0, 5.0))
    assert [row.tolist() for row in drawn] == [[True, False], [False, True]]
    assert sum(row.sum() for row in clip_cov(logprobs, advantages, share=2e-4, bounds=(1.0, 5.0))) == 1
    assert not np.concatenate(clip_cov(logprobs, advantages, share=1.0, bounds=(2.0, 5.0))).any()


@pytest.mark.parametrize("advantage", [0.0, 1.7])
def test_equal_advantages_draw_nothing(advantage):
    same = [np.full(7, advantage)]
    assert not clip_cov([np.linspace(-9, 0, 7)], same, share=1.0, bounds=(1e-9, np.inf))[0].any()


@given(batches(), st.floats(0, 1))
def test_kl_cov_takes_the_highest(batch, share):
    chosen = kl_cov(*batch, share=share)
    flat = np.concatenate([*chosen, np.zeros(0, bool)]).astype(bool)
    if not flat.size:
        return
    logprobs, advantages = (np.concatenate(rows) for rows in batch)
    cov = (logprobs - statistics.fmean(logprobs)) * (advantages - statistics.fmean(advantages))
    assert flat.sum() == max(math.floor(share * len(cov)), 1)
    assert cov[flat].min() >= cov[~flat].max(initial=-np.inf) - 1e-9


def test_kl_cov_by_hand():
    logprobs = [np.array([-1.0, -5.0]), np.array([-1.0, -4.0])]
    advantages = [np.array([1.0, 1.0]), np.array([-1.0, -1.0])]
    # Means -2.75 and 0: covariances 1.75, -2.25, -1.75 and 1.25.
    for share, expected in ((0.0, [[True, False], [False, False]]), (0.5, [[True, False], [False, True]])):
        assert [row.tolist() for row in kl_cov(logprobs, advantages, share=share)] == expected
    assert kl_cov([], [], share=0.5) == []
