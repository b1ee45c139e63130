"""Freed memory, given back to the system between the phases of a step, in which one actor works while others
wait: of actors that share a machine's memory, those at work decide how much it takes."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import psutil

WORTH_BYTES = 3 << 29
"""Bytes that a process must hold, libraries included, for freed memory to be worth returning. To fault in a
gigabyte again takes a quarter to half of a second, which is much beside the update of a small model."""
SMALL_BYTES = 64 << 20
"""Bytes of weights below which a model is small: training takes a few hundred megabytes, whatever the heap
does with its pages."""
_KEEP_PAGES = "oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:-1"
_KEEP_FOR_A_WHILE = "oversize_threshold:0,dirty_decay_ms:30000,muzzy_decay_ms:30000"
_ALL_ARENAS = 4096
"""MALLCTL_ARENAS_ALL of jemalloc 5."""


def heap_env(model_path: str) -> dict[str, str]:
    """Returns the environment of a process that trains a model on the CPU: jemalloc, which Ray ships, in
    place of glibc's heap.

    glibc leaves holes between the tensors of a backward pass, looks for one at every allocation, and takes
    about twice the memory in the end. jemalloc gives pages back all the time, to fault them in again: large
    tensors at once, others in ten seconds. With these settings jemalloc waits for half a minute, and keeps
    the pages of a small model, whose folder is `model_path`. The result is empty where Ray has no jemalloc
    for this platform, and where something else is preloaded already.
    """
    spec = importlib.util.find_spec("ray")
    library = Path(spec.origin).parent / "core" / "libjemalloc.so" if spec and spec.origin else None
    if library is None or not library.is_file() or os.environ.get("LD_PRELOAD"):
        return {}
    env = {"LD_PRELOAD": str(library)}
    num_bytes = sum(file.stat().st_size for file in Path(model_path).glob("*.safetensors"))
    if "MALLOC_CONF" not in os.environ:
        env["MALLOC_CONF"] = _KEEP_PAGES if 0 < num_bytes < SMALL_BYTES else _KEEP_FOR_A_WHILE
    return env


def give_back() -> None:
    """Returns what this process has freed, where it holds `WORTH_BYTES`; does nothing where the heap is
    neither jemalloc's nor glibc's.

    Either keeps the memory of tensors for the next ones: gigabytes, after an engine has written 128 answers.
    """
    if psutil.Process().memory_info().rss >= WORTH_BYTES:
        _give_back()()


@functools.cache
def _give_back() -> Callable[[], object]:
    loaded = ctypes.CDLL(None)
    if hasattr(loaded, "mallctl"):
        purge = f"arena.{_ALL_ARENAS}.purge".encode()
        return lambda: loaded.mallctl(purge, None, None, None, ctypes.c_size_t(0))
    if hasattr(loaded, "malloc_trim"):
        return lambda: loaded.malloc_trim(0)
    return lambda: None
