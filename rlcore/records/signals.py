"""Ctrl-C and SIGTERM as a wish to stop, which the training loop reads between steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """While entered, the first SIGINT or SIGTERM only sets the flag, so that the loop can finish its step,
    write a checkpoint and end cleanly; the second raises KeyboardInterrupt at once.

        with StopFlag() as stop:
            while not done and not stop: ...

    Enter it after `ray.init()`, which installs handlers of its own, and in the main thread; in any other
    thread no handler can be installed and the flag is only ever set by `request`.
    """

    def __init__(self) -> None:
        self._requested = False
        self._previous: dict[signal.Signals, Any] = {}
        self.reason: str | None = None
        """Name of the signal, or what `request` was told."""

    def __bool__(self) -> bool:
        return self._requested

    def request(self, reason: str) -> None:
        """Asks for the same clean end from within the program."""
        self._requested = True
        self.reason = self.reason or reason

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
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
