from __future__ import annotations

import math

import torch

from rlcore.algorithms.importance import Bounds, geometric_mask, off_policy_mask

MASK = torch.tensor([[True, True], [True, True], [True, False], [False, False]])
LOG_RATIOS = torch.tensor([[0.3, -0.1], [0.3, 0.1], [-0.3, 0.0], [0.0, 0.0]])


def test_the_geometric_mean_decides_for_the_whole_sequence():
    bounds = Bounds(low=math.exp(-0.15), high=math.exp(0.15))
    found = geometric_mask(LOG_RATIOS, MASK, bounds)
    means = torch.tensor([0.1, 0.2, -0.3, 0.0]).exp()[:, None].expand(4, 2)
    torch.testing.assert_close(found.ratios, means)
    assert found.weights.tolist() == [[1, 1], [0, 0], [0, 0], [1, 1]]
    assert found.bounded.tolist() == [[False] * 2, [True] * 2, [True] * 2, [False] * 2]
    # A sequence twice as long with the same tokens is as far out: the product would be twice as far.
    longer = geometric_mask(LOG_RATIOS.repeat(1, 2), MASK.repeat(1, 2), bounds)
    torch.testing.assert_close(longer.ratios[:, :2], found.ratios)


def test_a_token_of_no_probability_takes_its_sequence_out():
    impossible = torch.tensor([[-torch.inf, 0.0], [torch.inf, 0.0]])
    found = geometric_mask(impossible, MASK[:2], Bounds(low=0.5, high=2.0))
    assert not found.weights.any() and found.ratios.isfinite().all()


def test_bad_sequences_that_the_policy_has_left_are_masked():
    """The mean of log(rollout / policy) is 0.3 in the third alone; what is better than expected stays."""
    bad, good = -torch.ones(4, 2), torch.ones(4, 2)
    assert off_policy_mask(LOG_RATIOS, bad, MASK, 0.2)[:, 0].tolist() == [False, False, True, False]
    assert not off_policy_mask(LOG_RATIOS, bad, MASK, 0.301).any()
    assert not off_policy_mask(LOG_RATIOS, good, MASK, 0.2).any()
    assert not off_policy_mask(LOG_RATIOS, 0 * good, MASK, 0.2).any()
    mixed = torch.tensor([[1.0, -1.0]])
    assert off_policy_mask(-torch.ones(1, 2), mixed, MASK[:1], 0.2).tolist() == [[False, True]]
    assert off_policy_mask(-torch.full((1, 2), torch.inf), mixed, MASK[:1], 0.2).tolist() == [[False, True]]
