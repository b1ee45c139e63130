from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from rlcore.records.signals import SIGNALS, StopFlag


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # handlers run between bytecodes of the main thread


@pytest.fixture
def heard() -> Iterator[None]:
    """The signals as a terminal leaves them: whoever started the tests may have had them ignored."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", SIGNALS)
def test_first_signal_asks_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopFlag() as stop:
        assert not stop
        send(number)
        assert stop and stop.reason == number.name
        with pytest.raises(KeyboardInterrupt, match="without a checkpoint"):
            send(number)
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopFlag() as stop:
            send(signal.SIGHUP)
            assert not stop
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


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
