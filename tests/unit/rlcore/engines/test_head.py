"""The head's log-probabilities and entropies, against finite differences and a distribution in float64."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from rlcore.engines.head import HeadLogprobs


@pytest.mark.parametrize("entropy_grad", [False, True])
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_gradient_by_hand_is_that_of_finite_differences(entropy_grad, size, has_bias):
    torch.manual_seed(0)
    hidden, weight = (torch.randn(n, 5, dtype=torch.float64, requires_grad=True) for n in (3, 7))
    bias = torch.randn(7, dtype=torch.float64, requires_grad=True) if has_bias else None
    targets = torch.tensor([0, 6, 3])

    def score(*inputs):
        both = HeadLogprobs.apply(
            *inputs, *((None,) if bias is None else ()), targets, 0.7, entropy_grad, size
        )
        return both if entropy_grad else both[0]

    assert gradcheck(score, [hidden, weight] if bias is None else [hidden, weight, bias])


def test_entropy_is_exact_under_autocast() -> None:
    logits = (8 * torch.randn(64, 500, generator=torch.Generator().manual_seed(0))).bfloat16().float()
    exact = torch.distributions.Categorical(logits=logits.double()).entropy()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets = torch.zeros(64, dtype=torch.long)
        _, entropies = HeadLogprobs.apply(logits, torch.eye(500), None, targets, 1.0, False, 64)
    torch.testing.assert_close(entropies, exact.float(), rtol=0, atol=1e-4)
