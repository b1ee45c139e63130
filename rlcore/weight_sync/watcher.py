"""Ends a worker's part in a push that will never end by itself.

NCCL's collectives have no deadline: where the learner or another engine has died they wait for ever, on a
thread that hears nothing. A second thread listens meanwhile, and aborts what the first one waits in.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rlcore.errors import WeightSyncError
from rlcore.weight_sync.base import Push
from rlcore.weight_sync.messages import ReceiverTalk

logger = logging.getLogger(__name__)

ABORT_S = 10.0
"""Seconds in which what was aborted has to come back."""


@contextmanager
def watched(push: Push, name: str, abort: Callable[[], None]) -> Iterator[None]:
    """Runs a block in which this worker may wait for others in a push: `abort` is called, by another thread,
    once the learner calls the push off, hangs up or is overdue. A block that does not end then either ends
    the process: nothing else frees a thread that hangs in NCCL, and an engine that died is replaced.

    Raises:
        WeightSyncError: the push was called off, whatever the block did then.
    """
    talk = ReceiverTalk(push, f"{name}.watcher")  # the learner says nothing here, but hangs up
    is_over, reasons = threading.Event(), list[str]()

    def watch() -> None:
        try:
            talk.next()
        except WeightSyncError as error:
            if is_over.is_set():
                return
            reasons.append(str(error))
            abort()
            if not is_over.wait(ABORT_S):
                logger.critical("%s hangs in a push that was called off: %s", name, error)
                os._exit(1)

    thread = threading.Thread(target=watch, name="weight sync watcher", daemon=True)
    thread.start()
    try:
        yield
    except Exception as error:
        if reasons:
            raise WeightSyncError(reasons[0]) from error
        raise
    finally:
        is_over.set()
        with suppress(OSError):
            talk.line.socket.shutdown(socket.SHUT_RDWR)
        thread.join()
        talk.line.socket.close()
    if reasons:
        raise WeightSyncError(reasons[0])
