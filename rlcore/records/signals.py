"""Ctrl-C, SIGTERM and a closed terminal as a wish to stop, which the training loop reads between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_Handler = Callable[[int, FrameType | None], object] | int | None


class StopFlag:
    """A flag that the first SIGINT, SIGTERM or SIGHUP sets; the second raises KeyboardInterrupt at once.

    The loop can so finish its step, write a checkpoint and end cleanly.

        with StopFlag() as stop:
            while not done and not stop: ...

    The flag is entered after `ray.init()`, which installs handlers of its own, and in the main thread. In any
    other thread no handler can be installed, and only `request` sets the flag. A signal that was ignored
    before stays so: `nohup` asks for that.
    """

    def __init__(self) -> None:
        self._requested = False
        self._previous: dict[signal.Signals, _Handler] = {}
        self.reason: str | None = None
        """The name of the signal, or what `request` was told; None while no one asked."""

    def __bool__(self) -> bool:
        return self._requested

    def request(self, reason: str) -> None:
        """Sets the flag from within the program, for the same clean end."""
        self._requested = True
        self.reason = self.reason or reason

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._on_signal) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # None is a handler that was not installed from Python; it cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt(f"second {signal.Signals(number).name}: ending without a checkpoint")
        self.request(signal.Signals(number).name)
