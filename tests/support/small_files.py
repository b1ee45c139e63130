"""A disk that is full, for real and without a mount: the system writes no file beyond a size."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_file_beyond(num_bytes: int) -> Iterator[None]:
    """Has every write of this process beyond `num_bytes` of a file fail, for the length of the block: up to
    there bytes are written, and then comes EFBIG. Python ignores the signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
