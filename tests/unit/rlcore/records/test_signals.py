from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from rlcore.records.signals import StopFlag


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # handlers run between bytecodes of the main thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopFlag() as stop:
        assert not stop
        send(number)
        assert stop and stop.reason == number.name
        with pytest.raises(KeyboardInterrupt, match="without a checkpoint"):
            send(number)
    assert signal.getsignal(number) is before


def test_flag_works_in_a_thread_without_handlers() -> None:
    seen = []

    def work() -> None:
        with StopFlag() as stop:
            stop.request("deadline")
            seen.append((bool(stop), stop.reason))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(True, "deadline")]
