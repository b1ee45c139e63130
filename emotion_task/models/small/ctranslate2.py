"""Reads the tensors of a CTranslate2 model file (`model.bin`), in memory; none of its code runs.

    u32 format version, string specification, u32 revision, u32 number of tensors, then for each
    string name, u8 rank, u32 size of each dimension, u8 type, u32 bytes, data

All little-endian. A string is its length (u16, the closing zero included) and its bytes. Aliases follow,
further names of the same tensors, which nothing here needs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from rlcore.errors import DataError

_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
_OLDEST, _NEWEST = 4, 6
"""Format versions with this layout."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Contents of a CTranslate2 model file."""

    specification: str
    """Kind of model: `WhisperSpec`, `TransformerSpec`, ..."""
    tensors: dict[str, np.ndarray]
    """Read-only views into the file's bytes, as stored (float16 stays float16)."""


def read_model(data: bytes, name: str) -> ModelFile:
    """Parses the bytes of a model file; `name` stands for it in errors.

    Raises:
        DataError: another format, a type that is not known, or data that ends early.
    """
    cursor = _Cursor(data, name)
    version = cursor.number("I")
    if not _OLDEST <= version <= _NEWEST:
        raise DataError(
            f"{name}: not a CTranslate2 model of format {_OLDEST} to {_NEWEST}; it begins with {version}"
        )
    specification = cursor.string()
    cursor.number("I")
    tensors = {}
    for _ in range(cursor.number("I")):
        tensor_name = cursor.string()
        shape = [cursor.number("I") for _ in range(cursor.number("B"))]
        kind = cursor.number("B")
        if kind not in _TYPES:
            raise DataError(f"{name}: tensor {tensor_name} has type {kind}; known are {sorted(_TYPES)}")
        flat = np.frombuffer(cursor.take(cursor.number("I")), dtype=_TYPES[kind])
        if flat.size != np.prod(shape, dtype=np.int64):
            raise DataError(f"{name}: tensor {tensor_name} has shape {shape} and {flat.size} values")
        tensors[tensor_name] = flat.reshape(shape)
    return ModelFile(specification, tensors)


class _Cursor:
    def __init__(self, data: bytes, name: str):
        self._data, self._name, self._position = memoryview(data), name, 0

    def take(self, num_bytes: int) -> memoryview:
        end = self._position + num_bytes
        if end > len(self._data):
            raise DataError(
                f"{self._name}: ends after {len(self._data)} bytes, in the middle of something that reaches "
                f"to {end}: a part of it is missing"
            )
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def number(self, code: str) -> int:
        return int(struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0])

    def string(self) -> str:
        return bytes(self.take(self.number("H"))).rstrip(b"\0").decode()
