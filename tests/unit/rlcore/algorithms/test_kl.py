from __future__ import annotations

import math

import torch

from rlcore.algorithms.kl import kl_k1, kl_k2, kl_k3, kl_k3_capped

LOGPROBS = torch.tensor([[-1.0, -2.0]])
REFERENCE = torch.tensor([[-1.0, -1.5]])


def test_the_three_estimators_on_two_tokens():
    torch.testing.assert_close(kl_k1(LOGPROBS, REFERENCE), torch.tensor([[0.0, -0.5]]))
    torch.testing.assert_close(kl_k2(LOGPROBS, REFERENCE), torch.tensor([[0.0, 0.125]]))
    torch.testing.assert_close(kl_k3(LOGPROBS, REFERENCE), torch.tensor([[0.0, math.exp(0.5) - 1.5]]))


def test_k1_and_k3_average_to_the_exact_divergence():
    policy, reference = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.2, 0.3, 0.5]).log()
    exact = (policy.exp() * (policy - reference)).sum()
    for estimate in (kl_k1, kl_k3):
        torch.testing.assert_close((policy.exp() * estimate(policy, reference)).sum(), exact)


def test_k3_stays_finite_far_apart():
    assert kl_k3(torch.tensor([-1000.0]), torch.tensor([0.0])).isfinite().all()


def test_capped_k3_bounds_a_token_and_its_gradient():
    logprobs = torch.tensor([-8.0, -1.0], requires_grad=True)  # e^6 - 1 - 6 = 396.4, and e^-1 - 1 + 1
    kl = kl_k3_capped(logprobs, torch.tensor([-2.0, -2.0]))
    kl.sum().backward()
    torch.testing.assert_close(kl.detach(), torch.tensor([10.0, math.exp(-1)]))
    torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, 1 - math.exp(-1)]))
