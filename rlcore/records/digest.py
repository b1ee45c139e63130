"""A digest of nested values by their content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Digest(Protocol):
    """A hashlib object, as far as it is fed here."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Adds bytes to the digest."""


def update_digest(digest: Digest, value: object) -> None:
    """Feeds nested values to a digest, types and lengths included, so that no two values read alike."""
    digest.update(type(value).__name__.encode())
    if isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(f"{key}=".encode())
            update_digest(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"[{len(value)}]".encode())
        for item in value:
            update_digest(digest, item)
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    else:
        digest.update(repr(value).encode())
