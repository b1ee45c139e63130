"""The processes of actors: where one runs, and what its threads are doing there, by py-spy.

py-spy comes with `ray[default]`. It reads another process's memory: containers allow that to root, or with
the capability SYS_PTRACE.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlcore.actors.heartbeat import HEARTBEAT

DUMP_S = 10.0
"""Longest wait for stacks, with the start of a process that reads them."""
_TRIES = 3
"""A process that goes on while it is read may be read as nonsense."""
_MAX_FRAMES = 8
"""Innermost frames of a thread that are told."""
_MAX_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class ActorProcess:
    """The process of an actor, as Ray knows it."""

    pid: int
    address: str
    """Address of its node; empty before it has one."""
    node_id: str
    is_alive: bool
    """False while it is being started, or has ended."""


def process_of(actor: Any) -> ActorProcess | None:
    """Returns an actor's process; None where Ray cannot tell."""
    # Ray's public calls need the dashboard for this.
    from ray._private.state import actors

    try:
        info = actors(actor._actor_id.hex())
        address = info["Address"]
        return ActorProcess(info["Pid"], address["IPAddress"], address["NodeID"], info["State"] == "ALIVE")
    except Exception:  # an error is being told already: its place is worth no second one
        return None


def ask_stack(actor: Any) -> Future[str]:
    """Asks the actor's node what its threads are doing; see `stacks`."""
    process, unknown = process_of(actor), Future[str]()
    if process is None or not process.is_alive:
        unknown.set_result("")
        return unknown
    if process.node_id == ray.get_runtime_context().get_node_id():
        here = ThreadPoolExecutor(1)  # at once: a worker of Ray takes seconds to start
        asked = here.submit(_dump, process.pid)
        here.shutdown(wait=False)
        return asked
    on_node = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
    options = {"num_cpus": 0, "max_retries": 0, "enable_task_events": False, "scheduling_strategy": on_node}
    remote: Future[str] = ray.remote(_dump).options(**options).remote(process.pid).future()
    return remote


def stacks(actors: Sequence[Any]) -> list[str]:
    """Returns, for each actor, `; threads of process PID: THREAD: FUNCTION (FILE:LINE) < its caller < ...,
    THREAD: ...`, or why py-spy cannot tell. Empty where py-spy is not installed, or nothing came within
    `DUMP_S`."""
    asked = [ask_stack(actor) for actor in actors]
    wait(asked, DUMP_S)
    return [told(each) for each in asked]


def told(asked: Future[str]) -> str:
    """Returns what `ask_stack` has brought by now."""
    return asked.result() if asked.done() and asked.exception() is None else ""


def _dump(pid: int) -> str:
    """Runs on the process's node. A stopped process cannot be paused to be read, and need not be."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    found = shutil.which("py-spy", path=path)
    if found is None:
        return ""
    command = [found, "dump", "--nonblocking", "--json", "--pid", str(pid)]
    for _ in range(_TRIES):
        dumped = subprocess.run(command, capture_output=True, text=True, timeout=DUMP_S)
        if dumped.returncode == 0:
            return describe(pid, json.loads(dumped.stdout))
    return f"; py-spy: {' '.join(dumped.stderr.split())}"[:_MAX_CHARACTERS]


def describe(pid: int, threads: Sequence[dict[str, Any]]) -> str:
    """Returns a process's threads in one line, those of py-spy's `dump --json`; without Ray's own, which tell
    nothing."""
    lines = []
    for thread in sorted(threads, key=lambda thread: thread["os_thread_id"] or 0):  # the oldest first
        frames = [frame for frame in thread["frames"] if not frame["short_filename"].startswith("ray/")]
        is_working = any(frame["short_filename"] != "threading.py" for frame in frames)
        if is_working and thread["thread_name"] != HEARTBEAT:
            lines.append(f"{thread['thread_name']}: {' < '.join(map(_place, frames[:_MAX_FRAMES]))}")
    return f"; threads of process {pid}: {', '.join(lines)}"[:_MAX_CHARACTERS] if lines else ""


def _place(frame: dict[str, Any]) -> str:
    return f"{frame['name']} ({frame['short_filename']}:{frame['line']})"
