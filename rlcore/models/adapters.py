"""Pushes of low-rank adapters alone: kilobytes where whole weights are gigabytes.

An adapted weight W [out, in] travels as A [r, in] and B [out, r] (its scale in it), in float32. The engine
reads W from the checkpoint that it was built from, which the learner's frozen weights are, and loads W + B A
(Hu et al. 2021, arXiv:2106.09685). What it runs is the plain model: no adapter costs it a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from rlcore.errors import WeightSyncError
from rlcore.models.rounding import adapted

A, B = "::lora_A", "::lora_B"
"""Endings of the names of an adapted weight's factors, after the weight's hub name; A comes first."""


def are_adapters(names: Iterable[str]) -> bool:
    """Tells whether a push of these names brings adapters."""
    return any(name.endswith(B) for name in names)


def merged(
    tensors: Iterable[tuple[str, Tensor]], base: Callable[[str], Tensor], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Yields (hub name, weight) of a push of adapters to an engine of `dtype`; `base` gives a weight of the
    checkpoint. A weight that came whole is passed on."""
    for name, parts in by_weight(tensors):
        yield name, weight_of(name, parts, base, dtype)


def by_weight(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """Yields (hub name, factors A and B) of each weight in a push of adapters; a weight that came whole is
    the only tensor."""
    for name, tensor in tensors:
        if name.endswith(A):
            first = tensor
        elif name.endswith(B):
            yield name.removesuffix(B), (first, tensor)
        else:
            yield name, (tensor,)


def weight_of(
    name: str, parts: tuple[Tensor, ...], base: Callable[[str], Tensor], dtype: torch.dtype
) -> Tensor:
    """Returns the weight that a pair of factors from `by_weight` makes, on their device."""
    if len(parts) == 1:
        return parts[0]
    first, second = parts
    return adapted(base(name).to(first.device), second @ first, dtype, name)


def check_adapters(
    shapes: Iterable[tuple[str, Sequence[int]]], checkpoint: Mapping[str, Sequence[int]]
) -> None:
    """Compares a push's (name, shape)s with the engine's checkpoint.

    Raises:
        WeightSyncError: the checkpoint lacks a name, or factors do not make a matrix of the weight's shape.
    """
    first: tuple[str, Sequence[int]] = ("", ())
    for name, shape in shapes:
        hub_name = name.removesuffix(A).removesuffix(B)
        if hub_name not in checkpoint:
            raise WeightSyncError(f"the engine has no {hub_name}")
        made = tuple(shape)
        if name.endswith(A):
            first = (hub_name, shape)
            continue
        if name.endswith(B):
            fits = first[0] == hub_name and first[1][0] == shape[1]
            made = (shape[0], first[1][1]) if fits else ()
        if made != tuple(checkpoint[hub_name]):
            raise WeightSyncError(
                f"{name} makes a weight of shape {made}, the engine's {hub_name} is {checkpoint[hub_name]}"
            )
