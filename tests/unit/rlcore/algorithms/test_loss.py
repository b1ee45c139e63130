from __future__ import annotations

import math

import pytest
import torch

from rlcore.algorithms.aggregation import BatchTotals, constant, sequence, token
from rlcore.algorithms.loss import LossInputs, policy_loss
from rlcore.algorithms.surrogate import Clip, ppo
from rlcore.config import AlgorithmConfig

LN = math.log


def test_clipping_by_hand():
    ratios = torch.tensor([[1.0, 1.5, 0.5], [1.0, 1.5, 0.5]])
    advantages, mask = torch.tensor([[1.0], [-2.0]]).expand(2, 3), torch.ones(2, 3, dtype=torch.bool)
    loss, clipped = ppo(ratios.log(), torch.zeros(2, 3), advantages, mask, Clip(low=0.2, high=0.3))
    # A good sample may not grow past 1.3; a bad one may not shrink below 0.8.
    torch.testing.assert_close(loss, torch.tensor([[-1.0, -1.3, -0.5], [2.0, 3.0, 1.6]]))
    assert clipped.tolist() == [[False, True, False], [False, False, True]]


def test_aggregation_weighs_tokens_or_sequences():
    values = torch.tensor([[3.0, 5.0], [1.0, 0.0]])
    mask = torch.tensor([[True, True], [True, False]])
    totals = BatchTotals(num_tokens=3, num_sequences=2, max_tokens=6)
    assert token(values, mask, totals).item() == 3.0
    assert sequence(values, mask, totals).item() == 2.5
    assert constant(values, mask, totals).item() == 0.75


@pytest.mark.parametrize(("name", "total"), [("token", 3.0), ("sequence", 2.5), ("constant", 0.75)])
def test_what_is_masked_enters_no_aggregation(name: str, total: float):
    """The entropy bonus alone: without advantages nothing else is in the loss."""
    zeros, mask = torch.zeros(2, 2), torch.tensor([[True, True], [True, False]])
    inputs = LossInputs(
        logprobs=zeros,
        behaviour_logprobs=zeros,
        advantages=torch.zeros(2),
        mask=mask,
        entropies=torch.tensor([[3.0, 5.0], [1.0, 99.0]]),
    )
    settings = AlgorithmConfig(loss_aggregation=name, entropy_coef=1.0).loss_settings
    result = policy_loss(inputs, BatchTotals(num_tokens=3, num_sequences=2, max_tokens=6), settings)
    assert result.loss.item() == -total


def test_policy_loss_by_hand():
    logprobs = torch.tensor([[LN(0.5), LN(0.25)], [LN(0.9), float("nan")]], requires_grad=True)
    behaviour = torch.tensor([[LN(0.5), LN(0.5)], [LN(0.6), float("nan")]])
    reference = torch.tensor([[LN(0.5), LN(0.5)], [LN(0.9), float("nan")]])
    mask = torch.tensor([[True, True], [True, False]])
    inputs = LossInputs(
        logprobs=logprobs,
        behaviour_logprobs=behaviour,
        advantages=torch.tensor([1.0, 2.0]),
        mask=mask,
        reference_logprobs=reference,
    )
    settings = AlgorithmConfig(clip_low=0.2, clip_high=0.2, kl_coef=0.1).loss_settings
    result = policy_loss(inputs, BatchTotals(num_tokens=3, num_sequences=2, max_tokens=2), settings)
    # Ratios 1, 0.5 and 1.5 (held at 1.2); k3 of the second token is 2 - 1 - ln 2.
    surrogate, kl = -(1.0 + 0.5 + 2.4) / 3, 1 - LN(2)
    assert result.policy_loss.item() == pytest.approx(surrogate)
    assert result.loss.item() == pytest.approx(surrogate + 0.1 * kl / 3)
    assert result.kl_sum.item() == pytest.approx(kl)
    assert result.num_tokens.item() == 3
    assert result.clipped_sum.item() == 1

    result.loss.backward()
    # d/dlogp of -A * ratio / 3 is -0.5 / 3, and of 0.1 * k3 / 3 is 0.1 * (1 - r) / 3 with r = 2.
    expected = torch.tensor([[-1 / 3, -0.5 / 3 - 0.1 / 3], [0.0, 0.0]])
    torch.testing.assert_close(logprobs.grad, expected)


def test_on_policy_gradient_is_the_advantage_weighted_likelihood():
    logprobs = torch.tensor([[-1.0, -2.0], [-3.0, -1.0]], requires_grad=True)
    mask = torch.ones(2, 2, dtype=torch.bool)
    advantages = torch.tensor([0.7, -0.7])
    inputs = LossInputs(
        logprobs=logprobs, behaviour_logprobs=logprobs.detach(), advantages=advantages, mask=mask
    )
    settings = AlgorithmConfig(clip_low=0.2, clip_high=0.2, loss_aggregation="sequence").loss_settings
    totals = BatchTotals(num_tokens=4, num_sequences=2, max_tokens=2)
    policy_loss(inputs, totals, settings).loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-0.175, -0.175], [0.175, 0.175]]))
