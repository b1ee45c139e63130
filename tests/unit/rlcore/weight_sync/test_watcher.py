"""What a worker does that waits, in a push, for others who do not come."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from rlcore.errors import WeightSyncError
from rlcore.weight_sync.base import Push
from rlcore.weight_sync.messages import SenderPort
from rlcore.weight_sync.watcher import watched


def announced(timeout_s: float = 60) -> tuple[SenderPort, Push]:
    port = SenderPort("127.0.0.1", timeout_s)
    return port, port.announce("nccl", 3, (0,), 1)


def test_a_block_that_ends_by_itself_is_left_alone_and_its_error_is_its_own() -> None:
    port, push = announced()
    aborts: list[str] = []
    with watched(push, "rollout[0]", lambda: aborts.append("a")):
        pass
    with pytest.raises(ValueError, match="out of memory"), watched(push, "rollout[0]", aborts.clear):
        raise ValueError("out of memory")
    port.close()
    assert aborts == []


@pytest.mark.parametrize("how", ["hangs up", "is overdue"])
def test_a_block_is_aborted_once_the_learner_hangs_up_or_is_overdue(how: str) -> None:
    port, push = announced(60 if how == "hangs up" else 0.3)
    is_aborted = threading.Event()
    with pytest.raises(WeightSyncError, match="rollout"), watched(push, "rollout[0]", is_aborted.set):
        if how == "hangs up":
            port.close()
        assert is_aborted.wait(60)
    port.close()


HANGS = """
import sys, time
from rlcore.weight_sync import watcher
from rlcore.weight_sync.base import Push
watcher.ABORT_S = 0.2
push = Push(backend="nccl", version=3, id=1, engines=(0,), workers_per_engine=1, host="127.0.0.1",
            port=int(sys.argv[1]), token="t", timeout_s=0.3)
with watcher.watched(push, "rollout[0]", lambda: None):
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_process_whose_block_cannot_be_aborted_ends() -> None:
    port, push = announced()
    done = subprocess.run(
        [sys.executable, "-c", HANGS, str(push.port)], capture_output=True, text=True, timeout=300
    )
    port.close()
    assert done.returncode == 1
    assert "rollout[0] hangs in a push that was called off" in done.stderr
