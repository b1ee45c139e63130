from __future__ import annotations

import pytest
import torch

from rlcore.models.rounding import adapted

WEIGHTS = 0.05 * torch.randn(500, 300, generator=torch.Generator().manual_seed(0))


def test_a_change_that_rounding_would_lose_arrives_whole() -> None:
    base = WEIGHTS.bfloat16()
    change = 1e-2 * base.float() / 256 * torch.rand(WEIGHTS.shape)  # a hundredth of a unit at most
    assert torch.equal((base.float() + change).bfloat16(), base)
    moved = adapted(base, change, torch.bfloat16, "layers.0.q_proj") - base.float()
    assert float((moved * change.sign()).sum() / change.abs().sum()) == pytest.approx(1, abs=0.15)
    assert int((moved != 0).sum()) < 0.02 * moved.numel()


@pytest.mark.parametrize("scale", [1e-3, 3e-2, 1.0])
def test_the_sum_is_one_of_its_neighbours_and_right_on_average(scale: float) -> None:
    change = scale * 0.05 * torch.randn(WEIGHTS.shape, generator=torch.Generator().manual_seed(1))
    total = WEIGHTS.bfloat16().float() + change
    rounded = adapted(WEIGHTS, change, torch.bfloat16, "a")
    assert torch.equal(rounded, rounded.bfloat16().float())
    unit = 2.0 ** (torch.floor(torch.log2(total.abs())) - 7)
    assert bool(((rounded - total).abs() < unit).all())
    errors = (rounded - total) / unit
    assert float(errors.mean()) == pytest.approx(0, abs=5 / errors.numel() ** 0.5)


def test_no_change_is_no_difference_and_nothing_hangs_on_the_push() -> None:
    nothing = torch.zeros_like(WEIGHTS)
    assert torch.equal(adapted(WEIGHTS, nothing, torch.bfloat16, "a"), WEIGHTS.bfloat16().float())
    change = 1e-4 * torch.ones_like(WEIGHTS)
    first = adapted(WEIGHTS, change, torch.bfloat16, "a")
    assert torch.equal(adapted(WEIGHTS, change, torch.bfloat16, "a"), first)
    assert not torch.equal(adapted(WEIGHTS, change, torch.bfloat16, "b"), first)


def test_what_is_not_finite_stays_so_and_other_dtypes_are_plain_sums() -> None:
    base = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0])
    rounded = adapted(base, torch.zeros(4), torch.bfloat16, "a")
    assert torch.equal(rounded.isnan(), base.isnan()) and torch.equal(rounded[1:], base[1:])
    assert torch.equal(adapted(WEIGHTS, WEIGHTS, torch.float32, "a"), 2 * WEIGHTS)


def test_a_weight_that_does_not_change_keeps_the_sign_of_its_zero() -> None:
    zeros = torch.tensor([[-0.0, 0.0, 1.0]])
    for dtype in (torch.bfloat16, torch.float32):
        kept = adapted(zeros, torch.zeros(1, 3), dtype, "a")
        assert kept.view(torch.int32).tolist() == zeros.view(torch.int32).tolist()
