from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from rlcore.engines.host_memory import heap_env

SCRIPT = """
import ctypes, numpy as np, psutil
from rlcore.engines.host_memory import give_back
blocks = [np.ones(10_000) for _ in range(2000)]  # 160 MB, too small to be mapped one by one
in_use = blocks[-1]  # behind all others: glibc keeps them when freed
full = psutil.Process().memory_info().rss
del blocks
give_back()
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


def test_the_learners_heap_gives_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    env = heap_env()
    if not env:
        pytest.skip("Ray ships no jemalloc for this platform")
    assert run(**env) == "True"


def test_a_heap_of_the_users_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libtcmalloc.so")
    assert heap_env() == {}
