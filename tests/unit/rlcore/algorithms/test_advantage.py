from __future__ import annotations

import numpy as np
import pytest

from rlcore.algorithms.advantage import dr_grpo, group_advantages


def test_grpo_divides_by_the_population_deviation_of_each_group():
    rewards = np.array([[1.0, 0.0, 0.0, 1.0], [4.0, 0.0, 0.0, 0.0]])
    expected = [[1, -1, -1, 1], [1.7320508, -0.57735027, -0.57735027, -0.57735027]]
    np.testing.assert_allclose(group_advantages(rewards), expected, atol=1e-5)


def test_dr_grpo_only_centres():
    expected = [[0.5, -0.5, -0.5, 0.5]]
    np.testing.assert_array_equal(group_advantages([[1, 0, 0, 1]], estimator=dr_grpo), expected)


def test_a_group_whose_samples_agree_teaches_nothing():
    np.testing.assert_array_equal(group_advantages(np.full((1, 8), 1.3)), np.zeros((1, 8)))


def test_masked_samples_are_zero_and_leave_the_others_alone():
    rewards = np.array([[1.0, 0.0, np.nan], [5.0, np.nan, np.nan]])
    got = group_advantages(rewards, np.isfinite(rewards))
    np.testing.assert_allclose(got, [[1, -1, 0], [0, 0, 0]], atol=1e-5)
    assert got.dtype == np.float32


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"\[G, K\]"):
        group_advantages(np.zeros(3))
    with pytest.raises(ValueError, match="mask"):
        group_advantages(np.zeros((2, 3)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="NaN"):
        group_advantages([[np.nan, 1.0]])
    with pytest.raises(ValueError, match=r"must return \(1, 2\), got \(1,\)"):
        group_advantages([[0.0, 1.0]], estimator=lambda rewards, mask, eps: rewards.sum(axis=1))
