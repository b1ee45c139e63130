"""A digest of nested values by their content, for the keys of caches.

A value whose content this module cannot read is refused: its `repr` may be abridged, or hold an address.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from types import NoneType
from typing import TYPE_CHECKING, Protocol, TypeGuard

import numpy as np

if TYPE_CHECKING:
    import torch

_PLAIN = (NoneType, bool, int, float, complex, str, bytes)
"""Types whose `repr` is whole, and another for every other value."""


class Digest(Protocol):
    """A hashlib object, as far as it is fed here."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Adds bytes to the digest."""


def update_digest(digest: Digest, value: object) -> None:
    """Feeds nested values to a digest, types, shapes and lengths included, so that no two values read alike.

    Read are None, numbers, text, bytes, paths, enumerations, mappings, lists, tuples, sets, dataclasses,
    NumPy arrays (of objects too) and dense torch tensors.

    Raises:
        TypeError: the content of a value cannot be read; the message names its type.
    """
    kind = type(value)
    digest.update(f"{kind.__module__}.{kind.__qualname__}:".encode())
    if kind in _PLAIN:
        content = repr(value).encode()
        digest.update(f"[{len(content)}]".encode() + content)
    elif isinstance(value, np.ndarray | np.generic):
        _update_array(digest, np.asarray(value), value)
    elif _is_tensor(value):
        _update_tensor(digest, value)
    elif isinstance(value, Enum):
        update_digest(digest, value.name)
    elif isinstance(value, PurePath):
        update_digest(digest, str(value))
    elif isinstance(value, Mapping):
        digest.update(f"[{len(value)}]".encode())
        for key in sorted(value, key=_order):
            update_digest(digest, key)
            update_digest(digest, value[key])
    elif isinstance(value, list | tuple | AbstractSet):
        digest.update(f"[{len(value)}]".encode())
        for item in sorted(value, key=_order) if isinstance(value, AbstractSet) else value:
            update_digest(digest, item)
    elif is_dataclass(value) and not isinstance(value, type):
        update_digest(digest, {field.name: getattr(value, field.name) for field in fields(value)})
    else:
        raise TypeError(
            f"a {kind.__module__}.{kind.__qualname__} has no content that can be compared; give text, "
            "numbers, bytes, paths, arrays, tensors, or lists, mappings and dataclasses of them"
        )


def _order(value: object) -> tuple[str, str]:
    return type(value).__qualname__, repr(value)


def _update_array(digest: Digest, array: np.ndarray, value: object) -> None:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("a masked array has no content that can be compared; fill it first (`.filled()`)")
    digest.update(f"{array.dtype.descr if array.dtype.names else array.dtype}{array.shape}".encode())
    if array.dtype.hasobject:
        update_digest(digest, array.ravel().tolist())
    else:
        digest.update(array.tobytes())


def _is_tensor(value: object) -> TypeGuard[torch.Tensor]:
    # Where no one has imported torch, nothing is a tensor; most users of digests do without it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _update_tensor(digest: Digest, tensor: torch.Tensor) -> None:
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise TypeError(f"a {tensor.layout} tensor has no content that can be compared; make it dense first")
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    digest.update(dense.reshape(-1).view(torch.uint8).numpy().data)
