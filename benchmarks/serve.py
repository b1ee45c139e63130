"""Measures the service under load: so many clients at once, each of whom asks again as soon as it is
answered.

    python -m benchmarks.serve --model runs/quickstart/rl/model --audio FOLDER [--json FILE]

Goal: with 100 clients every request is answered with 200.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from benchmarks.report import argument_parser, finish

CLIENTS = (1, 10, 100)
REQUESTS = {1: 30, 10: 100, 100: 400}
PORT = 18765
START_S, END_S = 600, 120


@contextmanager
def service(model: str, replicas: int) -> Iterator[str]:
    """Serves a model for the length of the block, and yields its address."""
    command = [
        sys.executable,
        "-m",
        "emotion_task.cli",
        "serve",
        model,
        f"port={PORT}",
        f"replicas={replicas}",
    ]
    command += ["timeout_s=300", f"cluster.startup_timeout_s={START_S}"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "EMOTION_SERVE_TOKEN": ""}
        )
        try:
            yield _ready(process, log.fileno())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(END_S)


def _ready(process: subprocess.Popen[bytes], log: int) -> str:
    """Waits until the service is healthy, and returns its address."""
    address, deadline = f"http://127.0.0.1:{PORT}", time.monotonic() + START_S
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the service did not come up:\n{os.pread(log, 1 << 20, 0).decode()}")
        try:
            if httpx.get(f"{address}/health", timeout=10).status_code == 200:
                return address
        except httpx.HTTPError:
            time.sleep(0.5)


async def load(
    address: str, recordings: Sequence[bytes], clients: int, requests: int
) -> dict[str, float | int]:
    """Sends requests from so many clients, and returns the figures."""
    left, seconds, statuses = itertools.islice(itertools.cycle(recordings), requests), [], Counter[int]()

    async def client(http: httpx.AsyncClient) -> None:
        for recording in left:
            start = time.perf_counter()
            response = await http.post("/v1/explain?gender=female", content=recording)
            seconds.append(time.perf_counter() - start)
            statuses[response.status_code] += 1

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=300, limits=limits) as http:
        start = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(clients)))
        whole = time.perf_counter() - start
    return {
        "clients": clients,
        "requests": requests,
        "failed": requests - statuses[200],
        "p50_s": float(np.percentile(seconds, 50)),
        "p95_s": float(np.percentile(seconds, 95)),
        "requests_a_second": requests / whole,
    }


def main() -> None:
    parser = argument_parser(__doc__ or "")
    parser.add_argument("--model", required=True, help="folder of a trained model")
    parser.add_argument("--audio", type=Path, required=True, help="folder of recordings")
    parser.add_argument("--replicas", type=int, default=1)
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.audio.iterdir() if path.suffix in (".wav", ".flac"))
    recordings = [path.read_bytes() for path in files[:100]]
    rows = []
    with service(arguments.model, arguments.replicas) as address:
        asyncio.run(load(address, recordings, 4, 20))  # warms up
        for clients in CLIENTS:
            requests = REQUESTS[clients] // (4 if arguments.quick else 1)
            rows.append(asyncio.run(load(address, recordings, clients, max(requests, clients))))
            rows[-1]["load_average"] = os.getloadavg()[0]
    headline = {"replicas": arguments.replicas, **rows[-1]}
    goals = {"100 clients at once, no failure": all(row["failed"] == 0 for row in rows)}
    finish("serve", rows, headline, goals, arguments)


if __name__ == "__main__":
    main()
