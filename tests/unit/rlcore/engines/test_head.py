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


def test_float32_products_of_rounded_operands_under_autocast() -> None:
    """Log-probabilities and gradients as in float64 from operands rounded to bfloat16, on each of which the
    plain product is off by a rounding of its logits."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (4 * torch.randn(n, 64, generator=generator) for n in (32, 300))
    targets = torch.randint(300, (32,), generator=generator)

    def scored(in_float32: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logprobs, _ = HeadLogprobs.apply(h, w, None, targets, 50.0, False, 20, in_float32)
        logprobs.sum().backward()
        return logprobs.detach().double(), h.grad.double(), w.grad.double()

    h, w = (x.bfloat16().double().requires_grad_() for x in (hidden, weight))
    exact = torch.log_softmax(h @ w.T / 50.0, -1).gather(-1, targets[:, None])[:, 0]
    exact.sum().backward()
    expected = exact.detach(), h.grad, w.grad
    for got, plain, wanted in zip(scored(True), scored(False), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
        assert (plain - wanted).abs().max() > 100 * (got - wanted).abs().max()


def test_entropy_is_exact_under_autocast() -> None:
    logits = (8 * torch.randn(64, 500, generator=torch.Generator().manual_seed(0))).bfloat16().float()
    exact = torch.distributions.Categorical(logits=logits.double()).entropy()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets = torch.zeros(64, dtype=torch.long)
        _, entropies = HeadLogprobs.apply(logits, torch.eye(500), None, targets, 1.0, False, 64)
    torch.testing.assert_close(entropies, exact.float(), rtol=0, atol=1e-4)
