from __future__ import annotations

import pytest
import torch

from rlcore.errors import WeightSyncError
from rlcore.models.adapters import are_adapters, check_adapters, merged

BASE = {"q.weight": torch.arange(6.0).reshape(2, 3), "norm.weight": torch.ones(3)}
SHAPES = {name: tuple(tensor.shape) for name, tensor in BASE.items()}


def test_products_are_added_to_the_checkpoint_and_the_rest_is_passed_on() -> None:
    first, second = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[1.0], [-1.0]])
    push = [("q.weight::lora_A", first), ("q.weight::lora_B", second), ("norm.weight", torch.zeros(3))]
    got = dict(merged(push, BASE.__getitem__, torch.float32))
    assert got["q.weight"].tolist() == [[1.0, 1.0, 4.0], [2.0, 4.0, 3.0]]
    assert got["norm.weight"].tolist() == [0.0, 0.0, 0.0]
    assert are_adapters(name for name, _ in push) and not are_adapters(BASE)
    check_adapters([(name, tuple(tensor.shape)) for name, tensor in push], SHAPES)


@pytest.mark.parametrize(
    ("push", "message"),
    [
        ([("k.weight::lora_A", (1, 3))], "the engine has no k.weight"),
        ([("q.weight::lora_A", (1, 4)), ("q.weight::lora_B", (2, 1))], r"shape \(2, 4\), .* is \(2, 3\)"),
        ([("q.weight::lora_A", (1, 3)), ("q.weight::lora_B", (2, 2))], r"shape \(\), .* is \(2, 3\)"),
        ([("q.weight::lora_B", (2, 1))], r"q.weight::lora_B makes a weight of shape \(\)"),
        ([("norm.weight", (4,))], r"shape \(4,\), the engine's norm.weight is \(3,\)"),
    ],
)
def test_factors_that_do_not_fit_are_named(push, message: str) -> None:
    with pytest.raises(WeightSyncError, match=message):
        check_adapters(push, SHAPES)
