"""The predicate on groups with signal, against its definition on plain numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlcore.algorithms.signal import ROUNDING, groups_with_signal

QUARTERS = st.integers(-8, 8).map(lambda quarters: quarters / 4)
"""Equal values among them, and none that are nearly equal."""


@given(st.lists(st.tuples(QUARTERS, st.booleans()), min_size=1, max_size=6), st.floats(-1, 1))
def test_signal_is_two_different_rewards_that_count_and_rounding_changes_nothing(samples, noise):
    rewards, mask = (np.array([column]) for column in zip(*samples, strict=True))
    expected = len({value for value, counts in samples if counts}) > 1
    assert groups_with_signal(rewards, mask).tolist() == [expected]
    rounded = rewards + np.linspace(0, noise * ROUNDING / 2, rewards.size)
    assert groups_with_signal(rounded, mask).tolist() == [expected]


@given(st.lists(QUARTERS, min_size=2, max_size=6), st.permutations(range(6)), st.floats(1e-3, 1e6))
def test_order_and_scale_do_not_matter(values, order, scale):
    rewards = np.array([values])
    shuffled = np.array([[values[i] for i in order if i < len(values)]])
    everyone = np.ones(rewards.shape, bool)
    signal = groups_with_signal(rewards, everyone)
    assert (groups_with_signal(shuffled, everyone) == signal).all()
    assert (groups_with_signal(scale * rewards, everyone) == signal).all()


def test_sums_of_the_same_parts_in_another_order_are_equal():
    rewards = np.array([[0.1 + 0.2, 0.3], [0.1 + 0.2 - 0.3, 0.0], [1e9 * (0.1 + 0.2), 3e8]])
    assert groups_with_signal(rewards, np.ones((3, 2), bool)).tolist() == [False] * 3
    assert groups_with_signal(np.array([[0.3, 0.3 + 1e-6]]), np.ones((1, 2), bool)).tolist() == [True]
