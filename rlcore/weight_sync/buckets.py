"""How named tensors lie in one flat buffer: the manifest, writing, reading back as views, the checksum.

It knows neither processes nor engines; a medium (shared memory, a broadcast) moves the buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
import xxhash
from torch import Tensor

from rlcore.errors import WeightSyncError

ALIGNMENT = 64
"""Bytes; a cache line, and enough for every dtype."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor's place in the buffer."""

    name: str
    """As in the checkpoint on the hub."""
    dtype: str
    """`float32`, `bfloat16` or `float16`."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the buffer's beginning."""

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Manifest:
    """What a buffer holds, in order."""

    specs: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: str) -> Manifest:
        """Lays tensors out one after another, all in `dtype` (the engine's, so that half the bytes travel
        where it runs in bfloat16).

        Raises:
            WeightSyncError: an unknown dtype, or the same name twice.
        """
        if dtype not in DTYPES:
            raise WeightSyncError(f"weights cannot travel as {dtype!r}; allowed are {sorted(DTYPES)}")
        specs: list[TensorSpec] = []
        offset = 0
        for name, shape in shapes:
            specs.append(TensorSpec(name=name, dtype=dtype, shape=tuple(shape), offset=offset))
            offset += -(-specs[-1].num_bytes // ALIGNMENT) * ALIGNMENT
        manifest = cls(tuple(specs))
        if len(manifest.by_name) != len(specs):
            names = [spec.name for spec in specs]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise WeightSyncError(f"weights to push hold the same name twice: {twice[:3]}")
        return manifest

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Manifest:
        """The inverse of `rows`."""
        return cls(tuple(TensorSpec(**{**row, "shape": tuple(row["shape"])}) for row in rows))

    def rows(self) -> list[dict[str, Any]]:
        """Plain values, for vLLM's messages to its workers."""
        return [asdict(spec) for spec in self.specs]

    @cached_property
    def by_name(self) -> dict[str, TensorSpec]:
        return {spec.name: spec for spec in self.specs}

    @cached_property
    def num_bytes(self) -> int:
        """Of the whole buffer, alignment included."""
        last = self.specs[-1] if self.specs else None
        return 0 if last is None else last.offset + -(-last.num_bytes // ALIGNMENT) * ALIGNMENT

    def view(self, buffer: Tensor, name: str) -> Tensor:
        """One tensor of a uint8 buffer, without copying."""
        spec = self.by_name[name]
        flat = buffer[spec.offset : spec.offset + spec.num_bytes]
        return flat.view(DTYPES[spec.dtype]).view(spec.shape)

    def views(self, buffer: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of a uint8 buffer, without copying, in order."""
        for spec in self.specs:
            yield spec.name, self.view(buffer, spec.name)

    def pack(self, buffer: Tensor, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Copies tensors to their places, cast to the manifest's dtype; the order is free.

        Raises:
            WeightSyncError: a name or shape that the manifest lacks, a name given twice or not at all.
        """
        missing = set(self.by_name)
        for name, tensor in tensors:
            spec = self.by_name.get(name)
            if spec is None or tuple(tensor.shape) != spec.shape:
                expected = "no such tensor" if spec is None else f"shape {spec.shape}"
                raise WeightSyncError(f"pack {name} {tuple(tensor.shape)}: the manifest has {expected}")
            if name not in missing:
                raise WeightSyncError(f"pack {name}: given twice")
            missing.remove(name)
            self.view(buffer, name).copy_(tensor.detach())
        if missing:
            raise WeightSyncError(f"pack: {len(missing)} tensors were not given, among them {min(missing)}")


def checksum(buffer: Tensor) -> str:
    """xxh3 of a contiguous uint8 CPU buffer, hexadecimal. Tens of GB a second; no protection from forgery."""
    return xxhash.xxh3_64_hexdigest(buffer.numpy())
