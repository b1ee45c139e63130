"""Freed memory, given back to the system between the phases of a step, in which one actor works while others
wait: of actors that share a machine's memory, those at work decide how much it takes."""

from __future__ import annotations

import ctypes
import functools


def give_back() -> None:
    """Returns what this process has freed (malloc_trim); does nothing where the C library is not glibc.

    glibc keeps the memory of tensors for the next ones: gigabytes, after an engine has written 128 answers.
    """
    if trim := _malloc_trim():
        trim(0)


@functools.cache
def _malloc_trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return None
