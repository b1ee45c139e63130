"""A run as it is seen from outside: its processes, what it says that it is doing, what it has written."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.chaos.cells import ACTORS
from rlcore.config import RunConfig, save_config
from rlcore.records.timeline import STATUS
from rlcore.records.tracking import read_metrics

ROOT = Path(__file__).parents[2]
_AGENTS = {
    "dashboard agent": r"dashboard/agent\.py|DashboardAgent",
    "runtime env agent": r"runtime_env/agent/|RuntimeEnvAgent",
}
_SERVERS = {"raylet": "raylet", "GCS": "gcs_server"}
AGAIN = ("--resume", "--overwrite")
"""Words of a command that goes on where there is something to go on from, as schedulers give them."""
_GOES_ON = re.compile(r"`(rlcore train [^`]*)` (?:goes on|begins anew)")


@dataclass(frozen=True, slots=True)
class Status:
    """A status is what `status.json` says."""

    phase: str
    step: int | None
    since: float
    """Epoch seconds."""


class DisturbedRun:
    """A run in a process of its own, with a folder and a log beside the folder."""

    def __init__(self, config: RunConfig):
        self.folder = Path(config.run_dir)
        self.config_file = self.folder.with_suffix(".yaml")
        self.log = self.folder.with_suffix(".log")
        save_config(config, self.config_file)
        self._driver: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self, *words: str) -> None:
        """Starts `rlcore train` with these words after the configuration's name."""
        self._start([sys.executable, "-m", "rlcore.cli", "train", "--config", str(self.config_file), *words])

    def go_on(self) -> None:
        """Starts the command that the last error named; where there is none, one that goes on if it can."""
        found = _GOES_ON.findall(self.said())
        if found:
            self._start([sys.executable, "-m", "rlcore.cli", *shlex.split(found[-1])[1:]])
        else:
            self.start(*AGAIN)

    def _start(self, command: list[str]) -> None:
        self.end()
        with suppress(FileNotFoundError):
            (self.folder / STATUS).unlink()  # of a run that was killed
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
        with self.log.open("ab") as log:
            self._driver = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**environment, **os.environ, "PYTHONPATH": path},
            )

    @property
    def driver(self) -> subprocess.Popen[bytes]:
        """Returns the driver's process, which may have ended."""
        assert self._driver is not None, "start it first"
        return self._driver

    @property
    def is_running(self) -> bool:
        """Says whether the driver has not ended."""
        return self._driver is not None and self._driver.poll() is None

    def end(self) -> None:
        """Ends the driver, if it runs, and what it started."""
        if not self.is_running:
            return
        processes = self.processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.driver.wait(60)
        psutil.wait_procs(processes, timeout=60)

    def processes(self) -> list[psutil.Process]:
        """Returns the driver and what descends from it."""
        with suppress(psutil.NoSuchProcess):
            driver = psutil.Process(self.driver.pid)
            return [driver, *driver.children(recursive=True)]
        return []

    def find(self, victim: str) -> psutil.Process | None:
        """Returns a victim's process, or None where there is none now."""
        if victim == "driver":
            return psutil.Process(self.driver.pid) if self.is_running else None
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                name = process.name()
                # The raylet's words have its agents' in them.
                if victim in _SERVERS or name in _SERVERS.values():
                    is_it = name == _SERVERS.get(victim)
                elif victim in _AGENTS:
                    is_it = re.search(_AGENTS[victim], " ".join(process.cmdline())) is not None
                else:
                    is_it = f"ray::{ACTORS[victim]}" in " ".join(process.cmdline())
                if is_it and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        if victim.startswith("learner"):
            return _rank(found, int(victim[-1]))
        return found[0] if found else None

    def has_witness(self) -> bool:
        """Says whether the process stands that tells of the driver's death: it does not in the driver's first
        seconds, those of its imports."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if "rlcore.records.witness" in process.cmdline():
                    return True
        return False

    def status(self) -> Status | None:
        """Returns what the run says that it is doing; None before it says so."""
        with suppress(FileNotFoundError):
            return Status(**json.loads((self.folder / STATUS).read_text()))
        return None

    def steps(self) -> list[dict[str, Any]]:
        """Returns the rows of finished steps."""
        if not (self.folder / "metrics.jsonl").is_file():
            return []
        return [row for row in read_metrics(self.folder) if "policy_version" in row]

    def said(self) -> str:
        """Returns what the present driver and its witness have said."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def wait(self, is_there: Callable[[], object], timeout_s: float, every_s: float = 0.05) -> bool:
        """Waits until something is so; False where it was not within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not is_there():
            if time.monotonic() > deadline:
                return False
            time.sleep(every_s)
        return True


def _rank(learners: list[psutil.Process], rank: int) -> psutil.Process | None:
    """Rank 0 is the one that shares the weights' memory with engines. Before it does, the first is taken for
    it."""
    if len(learners) < 2:
        return None
    shared = os.listdir("/dev/shm")
    learners.sort(key=lambda each: (not any(f"weights-{each.pid}-" in name for name in shared), each.pid))
    return learners[rank]


def strike(
    run: DisturbedRun, victim: str, phase: str, name: str, *, delay_s: float, timeout_s: float
) -> tuple[Status, float] | None:
    """Sends a signal to a victim while the run is in a phase.

    The driver is stopped for the moment in which it is made sure that the phase has not ended meanwhile.

    Args:
        name: `kill` or `stop`.
        delay_s: seconds after the phase's beginning; less each time that the phase was over by then.

    Returns the status and the epoch seconds of the strike, or None where the phase did not come, or the run
    has ended.
    """
    number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[name]
    deadline, missed = time.monotonic() + timeout_s, set[float]()
    while time.monotonic() < deadline and run.is_running:
        process = run.find(victim)
        if process is None:
            time.sleep(0.05)
            continue
        status = _wait_for_phase(run, phase, missed, min(deadline, time.monotonic() + 5.0))
        if status is None:
            continue
        time.sleep(delay_s)
        driver = run.driver
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            driver.send_signal(signal.SIGSTOP)
            try:
                if run.status() == status and process.is_running():
                    process.send_signal(number)
                    return status, time.time()
            finally:
                driver.send_signal(signal.SIGCONT)
        if phase != "start":
            missed.add(status.since)
            delay_s /= 2
    return None


def _wait_for_phase(run: DisturbedRun, phase: str, missed: set[float], deadline: float) -> Status | None:
    path, seen = run.folder / STATUS, 0
    while time.monotonic() < deadline and run.is_running:
        with suppress(FileNotFoundError):
            if (written := path.stat().st_mtime_ns) != seen:
                seen = written
                status = run.status()
                if status is not None and status.phase == phase and status.since not in missed:
                    return status
        time.sleep(0.0005)
    return None
