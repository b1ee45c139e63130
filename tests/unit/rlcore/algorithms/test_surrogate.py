from __future__ import annotations

import math

import pytest
import torch

from rlcore.algorithms.surrogate import Clip, cispo, gspo, ppo, sapo

RATIOS = torch.tensor([[1.0, 1.5, 0.5], [1.0, 4.0, 0.5]])
ADVANTAGES = torch.tensor([[1.0] * 3, [-2.0] * 3])
OLD = torch.zeros(2, 3)
ALL = torch.ones(2, 3, dtype=torch.bool)
DUAL = Clip(low=0.2, high=0.3, dual=3.0)


def test_the_dual_clip_bounds_a_bad_sample_alone():
    loss, clipped = ppo(RATIOS.log(), OLD, ADVANTAGES, ALL, DUAL)
    torch.testing.assert_close(loss, torch.tensor([[-1.0, -1.3, -0.5], [2.0, 6.0, 1.6]]))
    assert clipped.tolist() == [[False, True, False], [False, True, True]]


def test_the_dual_clip_takes_the_gradient_away():
    logprobs = RATIOS.log().requires_grad_()
    ppo(logprobs, OLD, ADVANTAGES, ALL, DUAL)[0].sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-1.0, 0.0, -0.5], [2.0, 0.0, 0.0]]))


def test_gspo_clips_whole_sequences_by_their_geometric_mean():
    mask = torch.tensor([[True, True, True], [True, True, False]])
    logprobs = RATIOS.log().masked_fill(~mask, 0.0).requires_grad_()
    clip = Clip(low=0.2, high=0.2)
    loss, clipped = gspo(logprobs, OLD, ADVANTAGES, mask, clip)
    good, bad = 0.75 ** (1 / 3), 2.0  # (1 * 1.5 * 0.5)^(1/3) within the bounds, (1 * 4)^(1/2) beyond them
    torch.testing.assert_close(loss, torch.tensor([[-good] * 3, [2 * bad] * 3]))
    assert not clipped.any()  # a bad sequence that grew likelier keeps its gradient
    loss[0].mean().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-good / 3] * 3, [0.0] * 3]))
    clipped = gspo(RATIOS.log(), OLD, -ADVANTAGES, ALL, clip)[1]
    assert clipped.tolist() == [[False] * 3, [True] * 3]


def test_cispo_clips_the_weight_and_keeps_every_gradient():
    logprobs = RATIOS.log().requires_grad_()
    loss, clipped = cispo(logprobs, OLD, ADVANTAGES, ALL, Clip(low=1.0, high=0.3))
    loss.sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-1.0, -1.3, -0.5], [2.0, 2.6, 1.0]]))
    assert clipped.tolist() == [[False, True, False], [False, True, False]]
    assert loss[0, 1].item() == pytest.approx(-1.3 * math.log(1.5))


def test_sapo_fades_tokens_by_the_temperature_of_their_advantage():
    logprobs = RATIOS.log().requires_grad_()
    loss, faded = sapo(logprobs, OLD, ADVANTAGES, ALL, Clip(low=0.2, high=0.2, gate=(1.0, 2.0)))
    # 4 / t * sigmoid(t (ratio - 1)), with sigmoid(0.5) = 0.62245933, sigmoid(-0.5) = 0.37754067 and t = 1 for
    # the good sequence; sigmoid(6) = 0.99752738, sigmoid(-1) = 0.26894142 and t = 2 for the bad one.
    expected = [[-2.0, -2.4898373, -1.5101627], [2.0, 3.9901095, 1.0757657]]
    torch.testing.assert_close(loss.detach(), torch.tensor(expected))
    assert faded.tolist() == [[False] * 3, [False, True, False]]
    loss.sum().backward()
    # -A ratio times 4 sigmoid (1 - sigmoid) = 0.94001485 at 0.5 and -0.5, 0.00986604 at 6, 0.78644773 at -1.
    expected = [[-1.0, -1.4100223, -0.4700074], [2.0, 0.0789283, 0.7864477]]
    torch.testing.assert_close(logprobs.grad, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_sapo_stays_finite_far_apart():
    logprobs = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    loss, _ = sapo(
        logprobs, torch.zeros(1, 2), torch.ones(1, 2), ALL[:1, :2], Clip(low=1, high=1, gate=(1, 1))
    )
    loss.sum().backward()
    assert loss.isfinite().all() and logprobs.grad.tolist() == [[0.0, 0.0]]
