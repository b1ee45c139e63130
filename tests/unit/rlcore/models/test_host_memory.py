from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from rlcore.models.host_memory import heap_env

SCRIPT = """
import ctypes, numpy as np, os, psutil
from rlcore.models import host_memory
host_memory.WORTH_BYTES = 0
blocks = [np.ones(10_000) for _ in range(2000)]  # 160 MB, too small to be mapped one by one
in_use = blocks[-1]  # behind all others: glibc keeps them when freed
full = psutil.Process().memory_info().rss
del blocks
host_memory.WORTH_BYTES, worth = 1 << 40, host_memory.WORTH_BYTES
host_memory.give_back()
settings = os.environ.get("MALLOC_CONF", "")
is_kept = not hasattr(ctypes.CDLL(None), "mallctl") or "dirty_decay_ms:-1" in settings
# A process that holds little keeps it, but where jemalloc gives it back by and by.
assert not is_kept or full - psutil.Process().memory_info().rss < 50e6
host_memory.WORTH_BYTES = worth
host_memory.give_back()
assert full - psutil.Process().memory_info().rss > 100e6
assert in_use.sum() == 10_000
print(hasattr(ctypes.CDLL(None), "mallctl"))
"""


def run(**env: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"} | env
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_was_freed_goes_back_to_the_system() -> None:
    assert run() == "False"


@pytest.mark.parametrize("megabytes", [1, 100])
def test_the_learners_heap_gives_back_too(
    megabytes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("LD_PRELOAD", "MALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    with open(tmp_path / "model.safetensors", "wb") as weights:
        weights.truncate(megabytes << 20)
    env = heap_env(str(tmp_path))
    if not env:
        pytest.skip("Ray ships no jemalloc for this platform")
    assert run(**env) == "True"
    # A small model's pages are kept until asked for, others for a while.
    assert ("dirty_decay_ms:-1" in env["MALLOC_CONF"]) == (megabytes == 1)


def test_a_heap_of_the_users_own_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setenv("MALLOC_CONF", "narenas:1")
    (tmp_path / "model.safetensors").write_bytes(b"small")
    assert "MALLOC_CONF" not in heap_env(str(tmp_path))
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libtcmalloc.so")
    assert heap_env("some/model") == {}
