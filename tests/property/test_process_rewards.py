"""Rewards of single tokens against DeepSeekMath's formulas, written with scalars."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcore.algorithms.advantage import ADVANTAGES
from rlcore.algorithms.process import GivenAdvantages, StepValues, token_advantages
from rlcore.algorithms.ptr import mix_rewards
from rlcore.algorithms.signal import groups_with_signal

VALUES = st.integers(-12, 12).map(lambda quarters: quarters / 4)
"""Equal ones among them, and none that are nearly equal: their deviation would be rounding."""


@st.composite
def batches(draw):
    """Ragged answers with any number of judged steps, samples without one and masked ones among them."""
    num_groups, num_samples = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    lengths = np.array(draw(_table(num_groups, num_samples, st.integers(0, 7))))
    mask = np.array(draw(_table(num_groups, num_samples, st.booleans())))
    values = [
        [
            draw(st.dictionaries(st.integers(0, length - 1), VALUES, max_size=4)) if length else {}
            for length in row
        ]
        for row in lengths.tolist()
    ]
    return values, lengths, mask


def _table(rows: int, columns: int, cells):
    row = st.lists(cells, min_size=columns, max_size=columns)
    return st.lists(row, min_size=rows, max_size=rows)


@given(batches(), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_token_gets_the_normalised_values_of_the_steps_from_it_on(batch, discount) -> None:
    values, lengths, mask = batch
    steps = StepValues(values=values, weights=np.ones(len(values)))
    ours = token_advantages([steps], lengths, mask, eps=1e-6, discount=discount)
    for g, row in enumerate(values):
        steps = [v for k, of_sample in enumerate(row) if mask[g, k] for v in of_sample.values()]
        mean = sum(steps) / len(steps) if steps else 0.0
        std = math.sqrt(sum((v - mean) ** 2 for v in steps) / len(steps)) if steps else 0.0
        for k, of_sample in enumerate(row):
            assert ours[g][k].shape == (lengths[g, k],) and ours[g][k].dtype == np.float32
            for t in range(lengths[g, k]):
                to_come = [of_sample[at] for at in sorted(of_sample) if at >= t]
                due = sum(discount**n * (v - mean) / (std + 1e-6) for n, v in enumerate(to_come))
                expected = due if mask[g, k] else 0.0
                assert ours[g][k][t] == pytest.approx(expected, abs=1e-4)


@given(batches(), st.floats(-3, 3), st.integers(0, 99))
def test_given_advantages_are_added_as_they_are(batch, weight, seed) -> None:
    values, lengths, mask = batch
    rng = np.random.default_rng(seed)
    # Every third answer is one of which the reward says nothing.
    rows = [
        [rng.normal(size=n if (g + k) % 3 else 0) for k, n in enumerate(row)] for g, row in enumerate(lengths)
    ]
    given = GivenAdvantages(rows=rows, weights=np.full(len(rows), weight))
    steps = StepValues(values=values, weights=np.ones(len(values)))
    before = token_advantages([steps], lengths, mask)
    after = token_advantages([steps], lengths, mask, given=[given, given])
    alone = token_advantages([], lengths, mask, given=[given])
    for g, row in enumerate(lengths.tolist()):
        for k, length in enumerate(row):
            for t in range(length):
                said = float(rows[g][k][t]) * weight if mask[g, k] and len(rows[g][k]) else 0.0
                assert alone[g][k][t] == pytest.approx(said, abs=1e-6)
                assert after[g][k][t] == pytest.approx(before[g][k][t] + 2 * said, abs=1e-5)


@given(batches(), st.sampled_from(list(ADVANTAGES)), st.floats(0.01, 3), st.floats(0.01, 3))
def test_values_of_tokens_are_weighted_as_the_rewards_that_give_them(batch, estimator, first, second) -> None:
    """Whatever the estimator divides by: a reward of a hundredth of the weight has that of the effect."""
    values, lengths, mask = batch
    scores = {"plain": np.zeros(lengths.shape), "judge": np.zeros(lengths.shape)}

    def advantages(**weights: float) -> list[np.ndarray]:
        mixed = mix_rewards(scores, weights, token_values={"judge": values, "plain": values})
        return [
            row
            for of_group in token_advantages(mixed.steps, lengths, mask, estimator=ADVANTAGES[estimator])
            for row in of_group
        ]

    alone = advantages(plain=1.0, judge=0.0)
    for both, one in zip(advantages(plain=first, judge=second), alone, strict=True):
        assert both == pytest.approx((first + second) * one, rel=1e-4, abs=1e-5)
    silent = mix_rewards(scores, {"plain": 0.0, "judge": second}, token_values={"plain": values})
    assert silent.steps == ()


def test_steps_of_the_reasoning_reward_wait_and_are_trusted_like_its_value() -> None:
    scores = {"outcome": np.array([[1.0, 0.0]]), "reasoning": np.array([[0.2, 0.8]])}
    settings = {
        "outcome": "outcome",
        "reasoning": "reasoning",
        "token_values": {"reasoning": [[{0: 1.0}, {}]]},
    }
    closed = mix_rewards(scores, {"outcome": 1.0, "reasoning": 0.5}, factor=0.0, **settings)
    assert closed.steps == ()
    opened = mix_rewards(scores, {"outcome": 1.0, "reasoning": 0.5}, factor=1.0, **settings)
    (steps,) = opened.steps
    assert steps.values == [[{0: 1.0}, {}]]
    assert steps.weights == pytest.approx([0.5 * math.exp(-0.6)])


def test_steps_that_differ_are_a_signal_where_rewards_are_equal() -> None:
    rewards, mask = np.ones((3, 2)), np.array([[True, True], [True, True], [True, False]])
    values = [[{1: 0.5, 3: -0.5}, {}], [{1: 0.5}, {2: 0.5}], [{1: 0.5}, {1: 0.7}]]
    assert groups_with_signal(rewards, mask, [values]).tolist() == [True, False, False]
    assert token_advantages([], np.ones((3, 2), int), mask) is None
