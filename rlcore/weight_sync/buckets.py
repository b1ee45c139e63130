"""How named tensors are cut into buckets: the layout, packing with a checksum, reading back as views.

It knows neither processes nor engines; a medium (shared memory, a broadcast) moves the buckets' bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import xxhash
from torch import Tensor

from rlcore.errors import WeightSyncError

ALIGNMENT = 64
"""Bytes; a cache line, and enough for every dtype."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_CHUNK = 512 << 10
"""Bytes copied at a time: what has been copied is still in the core's cache when it is hashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor's place in its bucket."""

    name: str
    """As in the checkpoint on the hub."""
    dtype: str
    """`float32`, `bfloat16` or `float16`."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the bucket's beginning."""

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True, slots=True)
class Bucket:
    """Whole tensors that travel together."""

    specs: tuple[TensorSpec, ...]

    @property
    def num_bytes(self) -> int:
        """Alignment included."""
        last = self.specs[-1]
        return last.offset + -(-last.num_bytes // ALIGNMENT) * ALIGNMENT

    def __str__(self) -> str:
        first, last = self.specs[0].name, self.specs[-1].name
        return first if first == last else f"{first} to {last}"

    def views(self, buffer: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of a uint8 buffer that holds this bucket, without copying, in order."""
        for spec in self.specs:
            flat = buffer[spec.offset : spec.offset + spec.num_bytes]
            yield spec.name, flat.view(DTYPES[spec.dtype]).view(spec.shape)

    def pack(self, buffer: Tensor, tensors: Iterator[tuple[str, Tensor]]) -> str:
        """Takes this bucket's tensors from the iterator into a uint8 buffer, cast to the layout's dtype;
        returns their checksum.

        Raises:
            WeightSyncError: another name or shape than the layout's next, or no more tensors.
        """
        digest = xxhash.xxh3_64()
        for spec, (_, view) in zip(self.specs, self.views(buffer), strict=True):
            name, tensor = next(tensors, (None, None))
            if name != spec.name or tensor is None or tuple(tensor.shape) != spec.shape:
                got = "no more tensors" if tensor is None else f"{name} {tuple(tensor.shape)}"
                raise WeightSyncError(f"weights to push: expected {spec.name} {spec.shape}, got {got}")
            source, target = tensor.detach().cpu().reshape(-1), view.view(-1)
            step = _CHUNK // target.element_size()
            data = target.view(torch.uint8).numpy()
            for start in range(0, target.numel(), step):
                target[start : start + step].copy_(source[start : start + step])
                begin = start * target.element_size()
                digest.update(data[begin : begin + _CHUNK])
        return digest.hexdigest()

    def checksum(self, buffer: Tensor) -> str:
        """xxh3 of the tensors' bytes in a uint8 CPU buffer, hexadecimal. Tens of GB a second; no protection
        from forgery."""
        digest, data = xxhash.xxh3_64(), buffer.numpy()
        for spec in self.specs:
            digest.update(data[spec.offset : spec.offset + spec.num_bytes])
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Layout:
    """All buckets of a push, in the order they travel."""

    buckets: tuple[Bucket, ...]

    @classmethod
    def of(cls, shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: str, bucket_bytes: int) -> Layout:
        """Fills buckets of at most `bucket_bytes` (a larger tensor has one of its own), all in `dtype` (the
        engine's, so that half the bytes travel where it runs in bfloat16).

        Raises:
            WeightSyncError: an unknown dtype, the same name twice, or nothing at all.
        """
        if dtype not in DTYPES:
            raise WeightSyncError(f"weights cannot travel as {dtype!r}; allowed are {sorted(DTYPES)}")
        buckets: list[Bucket] = []
        specs: list[TensorSpec] = []
        for name, shape in shapes:
            offset = Bucket(tuple(specs)).num_bytes if specs else 0
            spec = TensorSpec(name=name, dtype=dtype, shape=tuple(shape), offset=offset)
            if specs and offset + spec.num_bytes > bucket_bytes:
                buckets.append(Bucket(tuple(specs)))
                specs, spec = [], TensorSpec(name=name, dtype=dtype, shape=tuple(shape), offset=0)
            specs.append(spec)
        if specs:
            buckets.append(Bucket(tuple(specs)))
        layout = cls(tuple(buckets))
        names = [spec.name for spec in layout.specs]
        if not names:
            raise WeightSyncError("weights to push: there are none")
        if len(names) != len(set(names)):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise WeightSyncError(f"weights to push hold the same name twice: {twice[:3]}")
        return layout

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[Mapping[str, Any]]]) -> Layout:
        """The inverse of `rows`."""
        return cls(
            tuple(
                Bucket(tuple(TensorSpec(**{**row, "shape": tuple(row["shape"])}) for row in bucket))
                for bucket in rows
            )
        )

    def rows(self) -> list[list[dict[str, Any]]]:
        """Plain values, a list a bucket."""
        return [
            [
                {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "offset": spec.offset}
                for spec in bucket.specs
            ]
            for bucket in self.buckets
        ]

    @property
    def specs(self) -> Iterator[TensorSpec]:
        return (spec for bucket in self.buckets for spec in bucket.specs)

    @property
    def num_bytes(self) -> int:
        """Of all tensors."""
        return sum(spec.num_bytes for spec in self.specs)

    @property
    def largest(self) -> int:
        """Bytes of the largest bucket: what a buffer must hold."""
        return max(ALIGNMENT, *(bucket.num_bytes for bucket in self.buckets))


def combined(checksums: Sequence[str]) -> str:
    """The checksum of a push: of its buckets' checksums, in order."""
    return xxhash.xxh3_64_hexdigest("".join(checksums).encode())
