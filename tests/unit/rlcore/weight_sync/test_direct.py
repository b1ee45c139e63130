"""Loaders that only copy are replaced by copies; every other kind is recognised and left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest
import torch
from torch import Tensor, nn

from rlcore.weight_sync.buckets import Layout, Packer
from rlcore.weight_sync.direct import DirectCopies, record

SHAPES = [("q", (8, 16)), ("k", (4, 16)), ("v", (4, 16)), ("bias", (16,)), ("embed", (30, 16))]
LAYOUT = Layout.of(SHAPES, "float32", 256)  # less than any matrix: all of them are cut

Weights = Iterable[tuple[str, Tensor]]


class Fused(nn.Module):
    """q, k and v in one parameter, an embedding padded to 32 rows, and a loader as vLLM's are."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.ones(16, 16), requires_grad=False)
        self.bias = nn.Parameter(torch.ones(16), requires_grad=False)
        self.embed = nn.Parameter(torch.ones(32, 16), requires_grad=False)
        self.register_buffer("sum", torch.zeros(16))

    def load_weights(self, weights: Weights) -> None:
        rows = {"q": (0, 8), "k": (8, 4), "v": (12, 4)}
        for name, tensor in weights:
            if name in rows:
                self.qkv.data.narrow(0, *rows[name]).copy_(tensor)
            elif name == "embed":
                self.embed[:30].data.copy_(tensor)
                self.embed[30:].data.fill_(0)
            else:
                self.bias.data.copy_(tensor.view(-1))

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.state_dict().items()}


def weights(seed: int) -> list[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(name, torch.randn(shape, generator=generator)) for name, shape in SHAPES]


def payloads(seed: int) -> Iterator[Tensor]:
    packer, buffer = Packer(weights(seed)), torch.zeros(LAYOUT.largest, dtype=torch.uint8)
    for bucket in LAYOUT.buckets:
        packer.fill(bucket, buffer)
        yield buffer


@torch.no_grad()
def recorded(model: Fused, load: Callable[[Weights], None]) -> DirectCopies | None:
    return record(LAYOUT, payloads(1), model, load)


def test_copies_do_what_the_loader_does() -> None:
    model, expected = Fused(), Fused()
    copies = recorded(model, model.load_weights)
    assert copies is not None and copies.fit(LAYOUT)
    expected.load_weights(weights(1))
    assert all(torch.equal(tensor, expected.state()[name]) for name, tensor in model.state().items())

    expected.load_weights(weights(2))
    copies.load(payloads(2))
    assert all(torch.equal(tensor, expected.state()[name]) for name, tensor in model.state().items())
    assert torch.equal(model.qkv[8:12], dict(weights(2))["k"])


def test_copies_are_of_one_layout_and_of_parameters_where_they_lie() -> None:
    model = Fused()
    copies = recorded(model, model.load_weights)
    assert copies is not None
    assert not copies.fit(Layout.of(SHAPES, "float32", 512))
    model.bias = nn.Parameter(model.bias.clone(), requires_grad=False)
    assert not copies.fit(LAYOUT)


def scaled(model: Fused, name: str, tensor: Tensor) -> None:
    model.bias.data.copy_(tensor)
    model.bias.data.mul_(2)


def offset(model: Fused, name: str, tensor: Tensor) -> None:
    model.bias.data.copy_(tensor + 1)


def half(model: Fused, name: str, tensor: Tensor) -> None:
    model.bias.data[:8].copy_(tensor[:8])


def cast(model: Fused, name: str, tensor: Tensor) -> None:
    model.bias.data.copy_(tensor.bfloat16())


def replaced(model: Fused, name: str, tensor: Tensor) -> None:
    model.bias.data = tensor.clone()


def transposed(model: Fused, name: str, tensor: Tensor) -> None:
    model.bias.data.view(4, 4).copy_(tensor.view(4, 4).t())


def derived(model: Fused, name: str, tensor: Tensor) -> None:
    model.bias.data.copy_(tensor)
    model.sum.copy_(model.bias.data * 2)


def added(model: Fused, name: str, tensor: Tensor) -> None:
    model.bias.data.copy_(tensor)
    model.sum.add_(tensor)


def read(model: Fused, name: str, tensor: Tensor) -> None:
    model.bias.data.copy_(tensor)
    model.scale = tensor[0].item()  # type: ignore[assignment]


def twice(model: Fused, name: str, tensor: Tensor) -> None:
    model.bias.data.copy_(tensor)
    model.sum.copy_(tensor)


def skipped(model: Fused, name: str, tensor: Tensor) -> None:
    pass


@pytest.mark.parametrize(
    "load_bias",
    [scaled, offset, half, cast, replaced, transposed, derived, added, read, twice, skipped],
    ids=lambda function: function.__name__,
)
def test_a_loader_that_does_more_is_left_alone(load_bias: Callable[[Fused, str, Tensor], None]) -> None:
    model = Fused()

    def load(tensors: Weights) -> None:
        for name, tensor in tensors:
            if name == "bias":
                load_bias(model, name, tensor)
            else:
                model.load_weights([(name, tensor)])

    assert recorded(model, load) is None


def test_a_loader_that_stops_early_is_left_alone() -> None:
    model = Fused()
    assert recorded(model, lambda tensors: model.load_weights([next(iter(tensors))])) is None
