"""`emotion serve` as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def emotion_serve(
    model: str, log: Path, *settings: str, token: str = ""
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serves a model on a free port, and yields its address once it is ready. The process has ended behind
    the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = (f"port={port}", "cluster.startup_timeout_s=480", *settings)
    command = [sys.executable, "-m", "emotion_task.cli", "serve", model, *settings]
    environment = {**os.environ, "EMOTION_SERVE_TOKEN": token}
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, text=True, env=environment)
    try:
        deadline = time.monotonic() + 500
        while "ready after" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
