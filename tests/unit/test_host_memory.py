from __future__ import annotations

import platform

import numpy as np
import psutil
import pytest

from rlcore.engines.host_memory import give_back


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_was_freed_goes_back_to_the_system() -> None:
    """Blocks too small to be mapped one by one, with one in use behind them: glibc keeps them when freed."""
    blocks = [np.ones(10_000) for _ in range(2000)]  # 160 MB
    in_use = blocks[-1]
    full = psutil.Process().memory_info().rss
    del blocks
    give_back()
    assert full - psutil.Process().memory_info().rss > 100e6
    assert in_use.sum() == 10_000
