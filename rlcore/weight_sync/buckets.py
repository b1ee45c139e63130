"""Cuts named tensors into buckets: the layout, packing with a checksum, putting together again.

This module knows neither processes nor engines: a medium (shared memory, a broadcast) moves the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from rlcore.errors import WeightSyncError

ALIGNMENT = 64
"""Bytes between the places where tensors may begin: a cache line, and enough for every dtype."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_CHUNK = 512 << 10
"""Bytes copied at a time: what has been copied is still in the core's own cache when it is hashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The place of a tensor, or of a part of one, in a bucket."""

    name: str
    """Name of the tensor in the checkpoint on the hub."""
    dtype: torch.dtype
    shape: tuple[int, ...]
    """Shape of the whole tensor."""
    start: int
    """First byte of the part within the whole tensor."""
    num_bytes: int
    offset: int
    """First byte of the part within the bucket."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket is what travels at once: some tensors, or a part of one."""

    pieces: tuple[Piece, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the bucket, alignment included."""
        return _aligned(self.pieces[-1].offset + self.pieces[-1].num_bytes)

    def __str__(self) -> str:
        first, last = self.pieces[0].name, self.pieces[-1].name
        return first if first == last else f"{first} to {last}"

    def checksum(self, payload: Tensor) -> str:
        """Returns the xxh3 of the tensors' bytes in a uint8 CPU buffer, hexadecimal. xxh3 reads tens of GB
        per second, and does not protect from forgery."""
        digest, data = xxhash.xxh3_64(), payload.numpy()
        for piece in self.pieces:
            digest.update(data[piece.offset : piece.offset + piece.num_bytes].data)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout is all buckets of a push, in the order they travel."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    dtype: str
    bucket_bytes: int
    buckets: tuple[Bucket, ...]

    @classmethod
    def of(cls, shapes: Iterable[tuple[str, Sequence[int]]], dtype: str, bucket_bytes: int) -> Layout:
        """Fills buckets of at most `bucket_bytes` (a larger tensor is cut), all in `dtype` (the engine's, so
        that half the bytes travel where it runs in bfloat16). The same arguments give the same layout.

        Raises:
            WeightSyncError: an unknown dtype, the same name twice, or nothing at all.
        """
        if dtype not in DTYPES:
            raise WeightSyncError(f"weights cannot travel as {dtype!r}; allowed are {sorted(DTYPES)}")
        named = tuple((name, tuple(shape)) for name, shape in shapes)
        names = [name for name, _ in named]
        if not names:
            raise WeightSyncError("weights to push: there are none")
        if len(names) != len(set(names)):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise WeightSyncError(f"weights to push hold the same name twice: {twice[:3]}")
        return cls(named, dtype, bucket_bytes, tuple(_cut(named, DTYPES[dtype], bucket_bytes)))

    def description(self) -> dict[str, Any]:
        """Returns the arguments of `of`, as plain values."""
        return {"shapes": self.shapes, "dtype": self.dtype, "bucket_bytes": self.bucket_bytes}

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(piece.num_bytes for bucket in self.buckets for piece in bucket.pieces)

    @property
    def largest(self) -> int:
        """Bytes of the largest bucket: what a buffer must hold."""
        return max(ALIGNMENT, *(bucket.num_bytes for bucket in self.buckets))

    def tensors(self, payloads: Iterable[Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yields a push's tensors, whole and in memory of their own, from all buckets (uint8) in order."""
        for bucket, payload in zip(self.buckets, payloads, strict=True):
            for piece in bucket.pieces:
                if piece.start == 0:
                    tensor = torch.empty(piece.shape, dtype=piece.dtype)
                    data = tensor.view(-1).view(torch.uint8)
                part = payload[piece.offset : piece.offset + piece.num_bytes]
                data[piece.start : piece.start + piece.num_bytes] = part
                if piece.start + piece.num_bytes == data.numel():
                    yield piece.name, tensor


class Packer:
    """Packs a push's tensors, (hub name, full tensor), into one bucket after another. A tensor is packed
    before the next one is asked for: a gathered one may be valid no longer."""

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]):
        self._tensors = iter(tensors)
        self._flat = torch.empty(0)  # the tensor under way
        self._bytes: np.ndarray[Any, Any] | None = None  # the same, where it has the layout's dtype
        self._staging = torch.empty(0, dtype=torch.uint8)  # for what comes from a GPU

    def fill(self, bucket: Bucket, buffer: Tensor) -> str:
        """Packs a bucket into a uint8 buffer, cast to the layout's dtype; returns its checksum.

        Raises:
            WeightSyncError: another name or shape than the layout's next, or no more tensors.
        """
        digest, data = xxhash.xxh3_64(), buffer.numpy()
        for piece in bucket.pieces:
            if piece.start == 0:
                self._flat = self._next(piece)
                same = self._flat.dtype == piece.dtype and self._flat.device.type == "cpu"
                self._bytes = self._flat.view(torch.uint8).numpy() if same else None
            part = self._part(piece)
            for begin in range(0, piece.num_bytes, _CHUNK):
                end = min(begin + _CHUNK, piece.num_bytes)
                target = data[piece.offset + begin : piece.offset + end]
                np.copyto(target, part[begin:end])
                digest.update(target.data)
        return digest.hexdigest()

    def finish(self) -> None:
        """Raises WeightSyncError where there is one more tensor."""
        if (extra := next(self._tensors, None)) is not None:
            raise WeightSyncError(f"weights to push: {extra[0]} comes after the last tensor announced")

    def _part(self, piece: Piece) -> np.ndarray[Any, Any]:
        first, last = piece.start, piece.start + piece.num_bytes
        if self._bytes is not None:
            return self._bytes[first:last]
        size = piece.dtype.itemsize
        cast = self._flat[first // size : last // size].to(piece.dtype).view(torch.uint8)
        if cast.device.type != "cpu":
            cast = self._fetched(cast)
        data: np.ndarray[Any, Any] = cast.numpy()
        return data

    def _fetched(self, data: Tensor) -> Tensor:
        """A GPU writes into pinned memory three to five times as fast as into other memory."""
        if self._staging.numel() < data.numel():
            self._staging = torch.empty(data.numel(), dtype=torch.uint8, pin_memory=True)
        return self._staging[: data.numel()].copy_(data)

    def _next(self, piece: Piece) -> Tensor:
        name, tensor = next(self._tensors, (None, None))
        if name != piece.name or tensor is None or tuple(tensor.shape) != piece.shape:
            got = "no more tensors" if tensor is None else f"{name} {tuple(tensor.shape)}"
            raise WeightSyncError(f"weights to push: expected {piece.name} {piece.shape}, got {got}")
        return tensor.detach().reshape(-1)


def combined(checksums: Sequence[str]) -> str:
    """Returns the checksum of a push: that of all buckets' checksums, in order."""
    return xxhash.xxh3_64_hexdigest("".join(checksums).encode())


def _cut(
    shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: torch.dtype, bucket_bytes: int
) -> Iterator[Bucket]:
    """A tensor that fits into a bucket stays whole."""
    largest = max(ALIGNMENT, bucket_bytes // ALIGNMENT * ALIGNMENT)
    pieces: list[Piece] = []
    offset = 0
    for name, shape in shapes:
        size = prod(shape) * dtype.itemsize
        for start in range(0, max(size, 1), largest):
            num_bytes = min(largest, size - start)
            if pieces and offset + num_bytes > bucket_bytes:
                yield Bucket(tuple(pieces))
                pieces, offset = [], 0
            piece = Piece(
                name=name, dtype=dtype, shape=shape, start=start, num_bytes=num_bytes, offset=offset
            )
            pieces.append(piece)
            offset = _aligned(offset + num_bytes)
    yield Bucket(tuple(pieces))


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT
