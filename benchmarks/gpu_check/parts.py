"""The parts of the check, in the order in which they are worth having, and the process that each runs in."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.record import Record, read_rows


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part is a function of a record, a device (`cuda` or `cpu`) and whether shapes are tiny."""

    target: str
    """`module:function`."""
    about: str
    limit_s: float
    """Seconds that it may take."""
    needs: tuple[str, ...] = ()
    """Packages beside torch and transformers."""


_HERE = "benchmarks.gpu_check"
PARTS = {
    "machine": Part(
        target=f"{_HERE}.machine:run", limit_s=100, about="driver, builds, imports, rates of the card"
    ),
    "logprobs": Part(
        target=f"{_HERE}.logprobs:run",
        limit_s=60,
        about="packed log-probabilities and gradients against one row at a time",
    ),
    "zero": Part(
        target=f"{_HERE}.zero:run",
        limit_s=100,
        about="updates under ZeRO 0, 2, 3 and offloading against the same updates on the CPU",
        needs=("deepspeed",),
    ),
    "step_small": Part(
        target=f"{_HERE}.steps:small", limit_s=70, about="updates of a model of 0.5B", needs=("deepspeed",)
    ),
    "step_omni": Part(
        target=f"{_HERE}.steps:omni",
        limit_s=120,
        about="adapters on a model of Qwen2.5-Omni-7B's shape, with recordings",
        needs=("deepspeed",),
    ),
    "push": Part(
        target=f"{_HERE}.engines:push",
        limit_s=150,
        about="weights into a running engine by each medium, its log-probabilities, sleep and wake",
        needs=("vllm",),
    ),
    "attention": Part(
        target=f"{_HERE}.attention:run", limit_s=60, about="packed attention of short and of long answers"
    ),
    "handles": Part(target=f"{_HERE}.transfers:handles", limit_s=40, about="tensors lent to another process"),
    "copies": Part(
        target=f"{_HERE}.transfers:copies", limit_s=30, about="copies between main memory and the device"
    ),
    "kill": Part(
        target=f"{_HERE}.engines:kill",
        limit_s=180,
        about="an engine killed in the middle of a push, and its successor",
        needs=("vllm",),
    ),
}


def run_part(name: str, part: Part, *, device: str, limit_s: float) -> dict[str, Any]:
    """Runs a part in a process of its own, for `limit_s` seconds at most.

    Returns its name, `status`, `seconds`, `rows` and `error`, the end of what it has printed. The status is
    `ok`, `failed` (a limit was missed), `error`, `timeout` or `skipped`.
    """
    missing = [package for package in part.needs if importlib.util.find_spec(package) is None]
    result = {"part": name, "about": part.about, "status": "skipped", "seconds": 0.0, "rows": [], "error": ""}
    if missing:
        return result | {"error": f"{', '.join(missing)} is not installed"}
    if limit_s <= 0:
        return result | {"error": "no time was left"}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as folder:
        out, log = Path(folder) / "rows.json", Path(folder) / "log"
        command = [sys.executable, "-m", f"{_HERE}.parts", part.target, device, str(out)]
        with log.open("wb") as stream:
            child = subprocess.Popen(
                command, stdout=stream, stderr=stream, env=environment(device), start_new_session=True
            )
            try:
                code = child.wait(limit_s)
            except subprocess.TimeoutExpired:
                code = None
            finally:  # with whatever the part has started
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        rows, text = read_rows(out), log.read_text(encoding="utf-8", errors="replace")
    last = "\n".join(text.strip().splitlines()[-30:])
    if code is None:
        status, error = "timeout", f"ended after {limit_s:.0f} s; its last words:\n{last}"
    elif code:
        status, error = "error", f"exit code {code}:\n{last}"
    else:
        failed = any(row["passed"] is False for row in rows)
        status, error = ("failed", last) if failed else ("ok", "")
    seconds = round(time.perf_counter() - start, 1)
    return result | {"status": status, "seconds": seconds, "rows": rows, "error": error}


def environment(device: str) -> dict[str, str]:
    """Returns the environment of a part's process: no hub, a learner's group of one rank, and on the CPU no
    GPU in sight."""
    group = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    own = {**os.environ, **quiet, **group}
    return own | ({"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if device == "cpu" else {})


def main() -> None:
    """Runs one part in this process."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("target", help="module:function")
    parser.add_argument("device", choices=("cuda", "cpu"))
    parser.add_argument("out", type=Path, help="JSON file of the rows, written after each")
    arguments = parser.parse_args()
    module, _, function = arguments.target.partition(":")
    run: Callable[..., None] = getattr(importlib.import_module(module), function)
    run(Record(arguments.out), arguments.device, tiny=arguments.device == "cpu")


if __name__ == "__main__":
    main()
