"""A witness is a small process beside a run's driver. The witness lives on when the driver is killed, or is
ended by Ray from C++, where no Python handler runs; then it says what died, what is saved and how to go on.

`witnessed` is the driver's end of it; run as a module, this file is the process. The driver's lines on its
stdin name a process to watch (`watch PID NAME`), and say that Ray is being ended (`rest`), or that the driver
has ended well (`done`). The witness answers on its stdout: `stop REASON` asks the driver for a clean end
after the step at hand, with a checkpoint; `end` has it end at once, where no clean end came in time.
"""

from __future__ import annotations

import logging
import math
import os
import select
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from rlcore.errors import ClusterError, RLCoreError
from rlcore.records import checkpoint
from rlcore.records.signals import StopFlag

log = logging.getLogger(__name__)

LOOK_S = 0.1
"""Between two looks."""
FROZEN_LOOKS = 150
"""Looks in a row at a stopped process (SIGSTOP), after which the process is taken for dead: 15 s. Looks are
counted, not timed: where the driver is stopped as well, the user did it."""
CLEAN_END_S = 50.0
"""A clean end may take this long. Ray ends a driver itself 60 s after the death of its GCS."""
_LAST_WORDS_S = 60.0
"""Time that the process may take to end once the run is done."""
_TELL_S = 5.0
"""A driver with nothing left to save may take this long to end; one that was told to, before it is killed."""


def what_is_saved(run_dir: Path | str) -> str:
    """Returns a sentence that names the last checkpoint of a run and the command that goes on from there.
    Work without such checkpoints has a sentence of its own in the place of the folder."""
    if isinstance(run_dir, str):
        return run_dir
    config = run_dir / "config.yaml"
    command = f"rlcore train --config {shlex.quote(str(config))}"
    if found := checkpoint.complete(run_dir / "checkpoints"):
        return f"{found[-1]} is saved, and `{command} --resume` goes on from there"
    if config.exists():
        return f"No step was saved; `{command} --overwrite` begins anew"
    return "No step was saved; the same command begins anew"


class Witness:
    """The driver's end: starts the process, and hears it from a thread."""

    def __init__(self, run_dir: Path | str):
        self.finding: str | None = None
        """What died of Ray, as a clause; None while nothing did."""
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(run_dir), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A terminal's signals (Ctrl-C, a closed ssh) are the driver's to answer.
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    @contextmanager
    def watch(self, processes: Mapping[str, int], stop: StopFlag) -> Iterator[None]:
        """Watches processes of Ray by name for the length of the block: the death of one sets `stop`."""
        for name, pid in processes.items():
            self._tell(f"watch {pid} {name}")
        threading.Thread(target=self._hear, args=(stop,), name="witness", daemon=True).start()
        try:
            yield
        finally:
            self.rest()

    def rest(self) -> None:
        """Ends the watch: from here on Ray is being ended."""
        self._tell("rest")

    def close(self) -> None:
        """Ends the process."""
        self._tell("done")
        assert self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()
        try:
            self._child.wait(_LAST_WORDS_S)
        except subprocess.TimeoutExpired:  # stopped, or on a hung disk
            self._child.kill()

    def _tell(self, line: str) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(f"{line}\n".encode())
            self._child.stdin.flush()
        except OSError:
            log.warning("process %d, which watches Ray's for this run, is gone", self._child.pid)

    def _hear(self, stop: StopFlag) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            word, _, reason = line.decode().strip().partition(" ")
            if word == "end":
                os._exit(1)  # the main thread may wait for Ray in C++, where no exception reaches it
            self.finding = reason
            stop.request(reason)


@contextmanager
def witnessed(run_dir: Path | str) -> Iterator[Witness]:
    """Has a witness beside this process for the length of the block. `run_dir` is absolute, or a sentence, as
    for `what_is_saved`.

    Raises ClusterError, which names the dead process, where one that was watched died meanwhile.
    """
    witness = Witness(run_dir)
    cause: Exception | None = None
    try:
        yield witness
    except Exception as error:
        cause = error
        if witness.finding is None:
            if not isinstance(error, RLCoreError):
                print(f"rlcore: {what_is_saved(run_dir)}", file=sys.stderr)
            raise
    finally:
        witness.close()
    if witness.finding is not None:
        raise ClusterError(f"{witness.finding}. {what_is_saved(run_dir)}") from cause


class Observer:
    """An observer looks at the driver and at Ray's processes, in the process of its own, until the driver has
    ended."""

    def __init__(self, run_dir: Path | str, driver: int):
        self.finding: str | None = None
        """As `Witness.finding`."""
        self._run_dir, self._driver_pid = run_dir, driver
        self._driver: psutil.Process | None = None
        with suppress(psutil.NoSuchProcess):  # killed while this process was being started
            self._driver = psutil.Process(driver)
        self._watched: dict[str, tuple[int, psutil.Process | None]] = {}
        """Process ids by name, and the processes; none where it was gone when it was looked up."""
        self._num_stopped: Counter[str] = Counter()
        """Looks in a row at which a process was stopped."""
        self._pidfds: list[int] = []
        """File descriptors that become readable when a process dies: of several, the first is seen first."""
        self._is_resting = self._is_done = False
        self._deadline = math.inf
        """When the driver must have ended."""

    def run(self) -> None:
        """Watches until the driver has ended, one way or another."""
        while True:
            state = _state(self._driver)
            is_stopped = state == psutil.STATUS_STOPPED
            self._listen(wait_for_deaths=not is_stopped)  # also to what a driver that has died said last
            if self._is_done:
                return
            if state == psutil.STATUS_DEAD:
                break
            if is_stopped:
                continue
            if self.finding is None:
                self.look()
            elif time.monotonic() > self._deadline:
                self._end_driver()
                break
        finding = self.finding or self._end_of_driver()
        _say(f"error: {finding}. {what_is_saved(self._run_dir)}")
        self._clean_up()

    def _end_of_driver(self) -> str:
        """Returns a clause that tells of the driver's end, and what of Ray is dead as well: Ray ends a driver
        within milliseconds of its raylet's death, and then nobody saw which was first."""
        driver = f"{_who('the driver', self._driver_pid)} was killed, or ended by Ray"
        for name, (pid, process) in self._watched.items() if not self._is_resting else ():
            if _state(process) == psutil.STATUS_DEAD:
                driver += f", and {_who(name, pid)} died"
        return f"{driver}: the lines above or the kernel's log say by whom"

    def watch(self, name: str, pid: int) -> None:
        """Watches a process from the next look on."""
        self._watched[name] = pid, None
        with suppress(psutil.NoSuchProcess):
            self._watched[name] = pid, psutil.Process(pid)
            with suppress(OSError):  # in some sandboxes; then the next look tells
                self._pidfds.append(os.pidfd_open(pid))

    def look(self) -> None:
        """Looks for processes that died, or that have been stopped for too long. Of several that are dead at
        one look, nobody saw which was first: all are named."""
        dead = []
        for name, (pid, process) in self._watched.items() if not self._is_resting else ():
            state, who = _state(process), _who(name, pid)
            self._num_stopped[name] = self._num_stopped[name] + 1 if state == psutil.STATUS_STOPPED else 0
            if state == psutil.STATUS_DEAD:
                dead.append(f"{who} died")
            elif self._num_stopped[name] >= FROZEN_LOOKS and not dead:
                self._found(f"{who} is stopped (SIGSTOP) for {FROZEN_LOOKS * LOOK_S:g} s now")
                return
        # Ray's processes die with the driver, which is then what died.
        if dead and _state(self._driver) != psutil.STATUS_DEAD:
            self._found(", and ".join(dead))

    def _listen(self, *, wait_for_deaths: bool) -> None:
        """Takes the driver's lines, waiting shortly for one, or for a death."""
        watched = self._pidfds if wait_for_deaths and not self._is_resting and not self.finding else []
        if 0 not in select.select([0, *watched], [], [], LOOK_S)[0]:
            return
        if not (text := os.read(0, 1 << 16)):
            time.sleep(LOOK_S)  # the driver's end is closed: there is nothing to wait for
        for line in text.decode().splitlines():
            word, _, rest = line.partition(" ")
            if word == "watch":
                pid, _, name = rest.partition(" ")
                self.watch(name, int(pid))
            self._is_done |= word == "done"
            if word == "rest":
                self._is_resting = True
                if self.finding is not None:  # the checkpoint is written, and Ray's end may hang
                    self._deadline = min(self._deadline, time.monotonic() + _TELL_S)

    def _found(self, finding: str) -> None:
        self.finding, self._deadline = finding, time.monotonic() + CLEAN_END_S
        _say(f"{finding}: the work ends after the step at hand, in {CLEAN_END_S:g} s at the latest")
        _answer(f"stop {finding}")

    def _end_driver(self) -> None:
        assert self._driver is not None, "it was alive a moment ago"
        _answer("end")
        try:
            self._driver.wait(_TELL_S)
        except psutil.TimeoutExpired:
            self._driver.kill()

    def _clean_up(self) -> None:
        """Ends what Ray leaves behind of a session that lost its head: agents for a minute, and whatever is
        stopped."""
        for _, process in self._watched.values():
            with suppress(psutil.NoSuchProcess):
                if process is not None:
                    process.kill()


def _who(name: str, pid: int) -> str:
    return f"{name} (process {pid} on {socket.gethostname()})"


def _state(process: psutil.Process | None) -> str:
    """One of psutil's words; `dead` also of a process that nobody has waited for, and of another one that has
    got its number."""
    if process is None or not process.is_running():
        return psutil.STATUS_DEAD
    try:
        state = process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD
    states = {psutil.STATUS_ZOMBIE: psutil.STATUS_DEAD, psutil.STATUS_TRACING_STOP: psutil.STATUS_STOPPED}
    return states.get(state, state)


def _say(sentence: str) -> None:
    """Into the driver's stderr, below a progress bar. A terminal may be gone."""
    with suppress(OSError):
        os.write(2, f"\nrlcore: {sentence}\n".encode())


def _answer(line: str) -> None:
    with suppress(OSError):
        os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    saved, driver = sys.argv[1:]
    Observer(Path(saved) if saved.startswith("/") else saved, int(driver)).run()
