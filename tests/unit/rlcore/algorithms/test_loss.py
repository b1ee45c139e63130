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
    # Ratios 1, 0.5 and 1.5 (held at 1.2); k3 of the second token is 2 - 1 - ln 2, weighted by its ratio.
    surrogate, kl = -(1.0 + 0.5 + 2.4) / 3, 1 - LN(2)
    assert result.policy_loss.item() == pytest.approx(surrogate)
    assert result.loss.item() == pytest.approx(surrogate + 0.1 * 0.5 * kl / 3)
    assert result.kl_sum.item() == pytest.approx(kl)
    assert result.num_tokens.item() == 3
    assert result.clipped_sum.item() == 1

    result.loss.backward()
    # d/dlogp of -A * ratio / 3 is -0.5 / 3, of 0.1 * ratio * k3 / 3 it is 0.05 * (1 - r) / 3 with r = 2.
    expected = torch.tensor([[-1 / 3, -0.5 / 3 - 0.05 / 3], [0.0, 0.0]])
    torch.testing.assert_close(logprobs.grad, expected)


def test_off_policy_the_gradient_of_the_kl_is_that_of_the_policy_in_expectation():
    """Summed over a small vocabulary, each token as often as the behaviour policy samples it: with k2, the
    gradient of KL(policy || reference) by the policy's logits."""
    logits = torch.tensor([0.3, -0.2, 0.5, 0.1], dtype=torch.float64, requires_grad=True)
    behaviour, reference = (
        torch.tensor(x, dtype=torch.float64).log_softmax(-1)
        for x in ([0.0, 0.1, 0.2, 0.3], [1.0, -1.0, 0.0, 0.5])
    )
    policy = logits.log_softmax(-1)
    (expected,) = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits, retain_graph=True)
    settings = AlgorithmConfig(kl_coef=1.0, kl_estimator="k2").loss_settings
    total = torch.zeros((), dtype=torch.float64)
    for t in range(4):
        inputs = LossInputs(
            logprobs=policy[t].view(1, 1),
            behaviour_logprobs=behaviour[t].view(1, 1),
            reference_logprobs=reference[t].view(1, 1),
            advantages=torch.zeros(1, dtype=torch.float64),
            mask=torch.ones(1, 1, dtype=torch.bool),
        )
        totals = BatchTotals(num_tokens=1, num_sequences=1, max_tokens=1)
        total = total + behaviour[t].exp() * policy_loss(inputs, totals, settings).loss
    (gradient,) = torch.autograd.grad(total, logits)
    torch.testing.assert_close(gradient, expected)


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


def test_tokens_that_are_held_back_pay_for_their_distance_to_the_old_policy():
    logprobs = torch.tensor([[-0.9, -2.2], [-0.7, -0.5]], requires_grad=True)
    old = torch.tensor([[-1.0, -2.0], [-1.0, float("nan")]])
    mask = torch.tensor([[True, True], [True, False]])
    inputs = LossInputs(
        logprobs=logprobs,
        behaviour_logprobs=old,
        advantages=torch.zeros(2),
        mask=mask,
        held_back=torch.tensor([[True, True], [False, True]]),
    )
    settings = AlgorithmConfig(kl_coef=0.0, kl_cov=0.5, kl_cov_coef=2.0).loss_settings
    result = policy_loss(inputs, BatchTotals(num_tokens=3, num_sequences=2, max_tokens=2), settings)
    assert result.loss.item() == pytest.approx(2 * (0.1 + 0.2) / 3)
    result.loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[2 / 3, -2 / 3], [0.0, 0.0]]))
