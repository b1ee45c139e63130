"""Keeps a run's folder to one run: two would delete each other's checkpoints and rows."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlcore.errors import ConfigError

log = logging.getLogger(__name__)

LOCK = "run.lock"


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Keeps other runs out of the folder until the block or the process ends, however that happens.

    Where the file system knows no locks, a warning says so.

    Raises:
        ConfigError: another run is in the folder; names its process, host and start.
    """
    path = run_dir / LOCK
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ConfigError(
                f"run_dir: {run_dir} is in use by {holder}: wait for its end, or choose another run_dir"
            ) from None
        except OSError as error:
            log.warning("%s: cannot be locked (%s): see to it that no other run is there", path, error)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T %z')}\n")
        file.flush()
        yield
