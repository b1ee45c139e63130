"""Every advantage against its formula, written out group by group with Python's own statistics."""

from __future__ import annotations

import math
import statistics
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlcore.algorithms.advantage import (
    ADVANTAGES,
    RewardTerm,
    decoupled_advantages,
    group_advantages,
    pass_at_k,
)
from rlcore.algorithms.signal import groups_with_signal

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 8))
ESTIMATORS = st.sampled_from(sorted(ADVANTAGES))
EPS = 1e-3
LOCAL = ("grpo", "dr_grpo", "rloo", "maxrl", "pass_at_k")
"""Estimators that look at one group only."""


@st.composite
def reward_tables(draw):
    """Rewards [G, K] >= 0 and which of them count; rule rewards (0 and 1), graded ones and equal ones."""
    shape = draw(SIZES)
    elements = draw(
        st.sampled_from([st.sampled_from([0.0, 1.0]), st.floats(0, 2, width=16), st.just(0.7), st.just(0.0)])
    )
    return draw(hnp.arrays(np.float64, shape, elements=elements)), draw(hnp.arrays(bool, shape))


def plain(estimator: str, rewards: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Loops and `statistics`."""
    out = np.zeros(rewards.shape)
    baselined: dict[tuple[int, int], float] = {}
    for g, row in enumerate(rewards):
        counted = [float(r) for r, m in zip(row, mask[g], strict=True) if m]
        for k, reward in enumerate(row):
            if not mask[g, k]:
                continue
            mean = statistics.fmean(counted)
            others = list(counted)
            others.remove(float(reward))
            baselined[g, k] = reward - (mean if estimator == "reinforce_pp_baseline" else 0.0)
            if estimator == "grpo":
                out[g, k] = (reward - mean) / (statistics.pstdev(counted) + EPS)
            elif estimator == "dr_grpo":
                out[g, k] = reward - mean
            elif estimator == "rloo":
                out[g, k] = reward - statistics.fmean(others) if others else 0.0
            elif estimator == "maxrl":
                out[g, k] = (reward - mean) / (mean - min(counted) + EPS)
            elif estimator == "pass_at_k":
                out[g, k] = best_of_sets(row, np.flatnonzero(mask[g]), k, 4)
            elif estimator == "gdpo":
                baselined[g, k] = (reward - mean) / (statistics.pstdev(counted) + EPS)
    if (estimator.startswith("reinforce_pp") or estimator == "gdpo") and baselined:
        values = list(baselined.values())
        for at, value in baselined.items():
            out[at] = (value - statistics.fmean(values)) / (statistics.pstdev(values) + EPS)
    return out


def best_of_sets(rewards: np.ndarray, counted: np.ndarray, sample: int, k: int) -> float:
    """Every set of k is written out."""
    sets = list(combinations(counted.tolist(), min(k, len(counted))))
    bests = [max(float(rewards[i]) for i in chosen) for chosen in sets]
    own = [best for best, chosen in zip(bests, sets, strict=True) if sample in chosen]
    return (statistics.fmean(own) - statistics.fmean(bests)) / (statistics.pstdev(bests) + EPS)


@given(reward_tables(), ESTIMATORS)
def test_advantages_are_the_plain_formulas(table, estimator):
    rewards, mask = table
    got = group_advantages(rewards, mask, estimator=ADVANTAGES[estimator], eps=EPS)
    np.testing.assert_allclose(got, plain(estimator, rewards, mask), rtol=1e-6, atol=1e-6)
    assert (got[~mask] == 0).all()


@given(reward_tables(), ESTIMATORS, st.integers(0, 2**16))
def test_advantages_follow_permutations_of_samples_and_of_groups(table, estimator, seed):
    rewards, mask = table
    rng = np.random.default_rng(seed)
    samples, groups = rng.permutation(rewards.shape[1]), rng.permutation(rewards.shape[0])
    whole = group_advantages(rewards, mask, estimator=ADVANTAGES[estimator], eps=EPS)
    moved = group_advantages(
        rewards[groups][:, samples], mask[groups][:, samples], estimator=ADVANTAGES[estimator], eps=EPS
    )
    np.testing.assert_allclose(whole[groups][:, samples], moved, atol=1e-6)


@given(reward_tables(), st.sampled_from(LOCAL))
def test_groups_do_not_know_of_each_other(table, estimator):
    rewards, mask = table
    whole = group_advantages(rewards, mask, estimator=ADVANTAGES[estimator], eps=EPS)
    alone = [
        group_advantages(r[None], m[None], estimator=ADVANTAGES[estimator], eps=EPS)
        for r, m in zip(rewards, mask, strict=True)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(alone))


@given(reward_tables(), ESTIMATORS)
def test_masked_rewards_are_never_read(table, estimator):
    rewards, mask = table
    spoilt = np.where(mask, rewards, np.nan)
    np.testing.assert_array_equal(
        group_advantages(spoilt, mask, estimator=ADVANTAGES[estimator]),
        group_advantages(rewards, mask, estimator=ADVANTAGES[estimator]),
    )
    np.testing.assert_array_equal(groups_with_signal(spoilt, mask), groups_with_signal(rewards, mask))


@given(reward_tables(), ESTIMATORS)
def test_every_advantage_sums_to_zero_over_what_it_compares(table, estimator):
    rewards, mask = table
    got = group_advantages(rewards, mask, estimator=ADVANTAGES[estimator], eps=EPS).astype(np.float64)
    sums = got.sum() if estimator == "reinforce_pp" else got.sum(axis=1)
    np.testing.assert_allclose(sums, 0, atol=1e-4)


@given(reward_tables(), ESTIMATORS)
def test_a_constant_added_to_every_reward_changes_nothing(table, estimator):
    rewards, mask = table
    whole = group_advantages(rewards, mask, estimator=ADVANTAGES[estimator], eps=EPS)
    np.testing.assert_allclose(
        whole, group_advantages(rewards + 2.0, mask, estimator=ADVANTAGES[estimator], eps=EPS), atol=1e-5
    )


@given(reward_tables())
def test_maxrl_is_bounded_and_is_the_papers_where_a_reward_is_zero(table):
    rewards, mask = table
    got = group_advantages(rewards, mask, estimator=ADVANTAGES["maxrl"])
    assert (got >= -1 - 1e-5).all() and (got <= rewards.shape[1] - 1 + 1e-5).all()
    with_failure = np.concatenate([np.zeros((len(rewards), 1)), rewards], axis=1)
    mean = with_failure.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(
        group_advantages(with_failure, estimator=ADVANTAGES["maxrl"], eps=1e-300),
        (with_failure - mean) / np.where(mean > 0, mean, 1.0),
        atol=1e-5,
    )


@given(reward_tables(), st.sampled_from([*LOCAL, "reinforce_pp_baseline"]))
def test_a_group_without_signal_gets_exactly_zero(table, estimator):
    rewards, mask = table
    got = group_advantages(rewards, mask, estimator=ADVANTAGES[estimator])
    signal = groups_with_signal(rewards, mask)
    expected = [
        len({float(r) for r, m in zip(*row, strict=True) if m}) > 1 for row in zip(rewards, mask, strict=True)
    ]
    assert signal.tolist() == expected
    if estimator in LOCAL:
        assert (got[~signal] == 0).all()


@pytest.mark.parametrize("estimator", sorted(ADVANTAGES))
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1.3, 1e-9])
@pytest.mark.parametrize("k", [1, 3, 7, 8])
def test_equal_rewards_give_exactly_zero(estimator, value, k):
    """A mean that rounds must not be divided by a tiny eps."""
    assert not group_advantages(np.full((2, k), value), estimator=ADVANTAGES[estimator], eps=1e-12).any()


@pytest.mark.parametrize(
    ("estimator", "right", "wrong"),
    [
        ("grpo", math.sqrt(7), -1 / math.sqrt(7)),
        ("dr_grpo", 7 / 8, -1 / 8),
        ("rloo", 1.0, -1 / 7),
        ("reinforce_pp", math.sqrt(7), -1 / math.sqrt(7)),
        ("reinforce_pp_baseline", math.sqrt(7), -1 / math.sqrt(7)),
        ("maxrl", 7.0, -1.0),
        ("pass_at_k", 1.0, -1 / 7),  # half of the sets of four hold the right one
        ("gdpo", math.sqrt(7), -1 / math.sqrt(7)),
    ],
)
def test_one_right_of_eight(estimator, right, wrong):
    got = group_advantages([[1, 0, 0, 0, 0, 0, 0, 0]], estimator=ADVANTAGES[estimator], eps=1e-9)
    np.testing.assert_allclose(got, [[right] + [wrong] * 7], atol=1e-6)


@pytest.mark.parametrize("estimator", sorted(ADVANTAGES))
def test_all_masked_and_single_samples_are_defined(estimator):
    nothing = group_advantages(
        np.full((2, 4), np.nan), np.zeros((2, 4), bool), estimator=ADVANTAGES[estimator]
    )
    assert nothing.shape == (2, 4) and not nothing.any()
    assert not group_advantages([[0.3]], estimator=ADVANTAGES[estimator]).any()
    assert groups_with_signal(np.full((2, 4), np.nan), np.zeros((2, 4), bool)).tolist() == [False, False]


@given(reward_tables(), st.integers(1, 9))
def test_pass_at_k_is_the_mean_over_all_sets(table, k):
    rewards, mask = table
    got = group_advantages(rewards, mask, estimator=partial(pass_at_k, k=k), eps=EPS)
    for g, i in zip(*np.nonzero(mask), strict=True):
        plainly = best_of_sets(rewards[g], np.flatnonzero(mask[g]), i, k)
        assert got[g, i] == pytest.approx(plainly, rel=1e-6, abs=1e-6)
    if k >= rewards.shape[1]:
        assert np.abs(got).max() < 1e-6


@given(reward_tables())
def test_pass_at_1_is_grpo(table):
    rewards, mask = table
    one = group_advantages(rewards, mask, estimator=partial(pass_at_k, k=1), eps=EPS)
    np.testing.assert_allclose(one, group_advantages(rewards, mask, eps=EPS), atol=1e-6)


@pytest.mark.parametrize(("num_right", "num_samples", "k"), [(1, 8, 4), (3, 8, 4), (2, 5, 2), (5, 100, 30)])
def test_pass_at_k_of_right_and_wrong_is_the_papers(num_right, num_samples, k):
    wrong = num_samples - num_right
    mean = 1 - math.comb(wrong, k) / math.comb(num_samples, k)
    std = math.sqrt(mean * (1 - mean))
    of_right = (1 - mean) / std
    of_wrong = (1 - mean - math.comb(wrong - 1, k - 1) / math.comb(num_samples - 1, k - 1)) / std
    rewards = np.array([[1.0] * num_right + [0.0] * wrong])
    got = group_advantages(rewards, estimator=partial(pass_at_k, k=k), eps=1e-12)
    np.testing.assert_allclose(got, [[of_right] * num_right + [of_wrong] * wrong], atol=1e-6)


@st.composite
def sums_of_rewards(draw):
    """Tables of one to three rewards with weights per group, and one mask."""
    shape = draw(SIZES)
    values = st.sampled_from([st.sampled_from([0.0, 1.0]), st.floats(0, 2, width=16), st.just(0.7)])
    tables = [hnp.arrays(np.float64, shape, elements=draw(values)) for _ in range(draw(st.integers(1, 3)))]
    weights = hnp.arrays(np.float64, shape[:1], elements=st.floats(0.125, 2, width=16))
    terms = [RewardTerm(values=draw(table), weights=draw(weights)) for table in tables]
    return terms, draw(hnp.arrays(bool, shape))


def plain_decoupled(terms: list[RewardTerm], mask: np.ndarray) -> np.ndarray:
    """Loops and `statistics`."""
    sums = {(int(g), int(k)): 0.0 for g, k in zip(*np.nonzero(mask), strict=True)}
    for term in terms:
        for g, k in sums:
            counted = [float(r) for r, m in zip(term.values[g], mask[g], strict=True) if m]
            centred = term.values[g, k] - statistics.fmean(counted)
            sums[g, k] += term.weights[g] * centred / (statistics.pstdev(counted) + EPS)
    out = np.zeros(mask.shape)
    for at, value in sums.items():
        everything = list(sums.values())
        out[at] = (value - statistics.fmean(everything)) / (statistics.pstdev(everything) + EPS)
    return out


@given(sums_of_rewards())
def test_gdpo_normalises_each_reward_and_then_the_batch(case):
    terms, mask = case
    got = decoupled_advantages(terms, mask, eps=EPS)
    np.testing.assert_allclose(got, plain_decoupled(terms, mask), rtol=1e-6, atol=1e-6)
    assert (got[~mask] == 0).all()


@given(sums_of_rewards(), st.data())
def test_gdpo_knows_neither_order_nor_offset_nor_what_is_masked(case, data):
    terms, mask = case
    whole = decoupled_advantages(terms, mask, eps=EPS)
    offset = data.draw(st.floats(-2, 2, width=16))
    moved = [RewardTerm(values=t.values + offset, weights=t.weights) for t in terms[::-1]]
    np.testing.assert_allclose(decoupled_advantages(moved, mask, eps=EPS), whole, atol=1e-5)
    spoilt = [RewardTerm(values=np.where(mask, t.values, np.nan), weights=t.weights) for t in terms]
    np.testing.assert_array_equal(decoupled_advantages(spoilt, mask, eps=EPS), whole)
    groups = data.draw(st.permutations(range(len(mask))))
    samples = data.draw(st.permutations(range(mask.shape[1])))
    shuffled = [RewardTerm(values=t.values[groups][:, samples], weights=t.weights[groups]) for t in terms]
    got = decoupled_advantages(shuffled, mask[groups][:, samples], eps=EPS)
    np.testing.assert_allclose(got, whole[groups][:, samples], atol=1e-5)


def test_gdpo_tells_apart_what_the_sum_does_not():
    """The paper's example: of two rewards of 0 and 1, the sums (0, 1) and (0, 2) are alike after GRPO."""
    right, form = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])
    weights = np.ones(2)
    terms = [RewardTerm(values=values, weights=weights) for values in (right, form)]
    mask = np.ones((2, 2), bool)
    np.testing.assert_allclose(group_advantages(right + form, eps=1e-9), [[-1, 1], [-1, 1]], atol=1e-6)
    # Sums of normalised rewards are -1, 1 and -2, 2, of deviation sqrt(2.5).
    expected = np.array([[-1, 1], [-2, 2]]) / math.sqrt(2.5)
    np.testing.assert_allclose(decoupled_advantages(terms, mask, eps=1e-9), expected, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_reward_that_counts_and_is_not_finite_is_refused(bad):
    broken = RewardTerm(values=np.array([[bad, 1.0]]), weights=np.ones(1))
    with pytest.raises(ValueError, match="not masked is NaN or infinite"):
        decoupled_advantages([broken], np.ones((1, 2), bool))
    with pytest.raises(ValueError, match="not masked is NaN or infinite"):
        group_advantages(broken.values, estimator=pass_at_k)
