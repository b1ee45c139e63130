"""A witness beside a driver, with real processes in the place of Ray's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from rlcore.errors import ClusterError, DataError
from rlcore.records import checkpoint, witness
from rlcore.records.signals import StopFlag
from rlcore.records.witness import FROZEN_LOOKS, Observer, what_is_saved, witnessed

DRIVER = """
import sys, time
from pathlib import Path
from rlcore.records.signals import StopFlag
from rlcore.records.witness import witnessed
run_dir, parts = Path(sys.argv[1]), {"part": int(sys.argv[2])}
with witnessed(run_dir) as witness, StopFlag() as stop, witness.watch(parts, stop):
    print("up", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def part() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing, in the place of one of Ray's."""
    process = subprocess.Popen(["sleep", "100"])
    yield process
    process.kill()
    process.wait()


def wait_until(is_there: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not is_there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def save_step(run_dir: Path, step: int) -> None:
    with checkpoint.writing(run_dir / "checkpoints", step=step, state={}, settings={}):
        pass


def test_what_is_saved_names_the_last_checkpoint_and_a_command_that_a_shell_can_read(tmp_path: Path) -> None:
    run_dir = tmp_path / "my run"
    assert what_is_saved("The same command goes on") == "The same command goes on"
    assert what_is_saved(run_dir) == "No step was saved; the same command begins anew"
    run_dir.mkdir()
    (run_dir / "config.yaml").touch()
    command = f"rlcore train --config '{run_dir}/config.yaml'"
    assert what_is_saved(run_dir) == f"No step was saved; `{command} --overwrite` begins anew"
    save_step(run_dir, 5)
    save_step(run_dir, 10)
    (run_dir / "checkpoints" / "step_000015").mkdir()  # not complete
    saved = f"{run_dir}/checkpoints/step_000010 is saved"
    assert what_is_saved(run_dir) == f"{saved}, and `{command} --resume` goes on from there"


def test_the_death_of_a_part_stops_the_run_and_is_its_error(
    tmp_path: Path, part: subprocess.Popen[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(
            ClusterError, match=rf"^the part \(process {part.pid} on .*\) died\. No step was saved"
        ),
        witnessed(tmp_path) as witness,
        StopFlag() as stop,
        witness.watch({"the part": part.pid}, stop),
    ):
        part.kill()
        wait_until(lambda: stop)
        assert stop.reason == witness.finding
        raise DataError("what came of it")
    said = capfd.readouterr().err
    assert f"rlcore: the part (process {part.pid} on " in said and said.count("died") == 1


def test_a_driver_that_is_killed_is_spoken_for_and_leaves_nothing(
    tmp_path: Path, part: subprocess.Popen[bytes]
) -> None:
    save_step(tmp_path, 40)
    command = [sys.executable, "-c", DRIVER, str(tmp_path), str(part.pid)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert driver.stdout is not None
    assert driver.stdout.readline() == b"up\n"
    (witness,) = psutil.Process(driver.pid).children()
    driver.kill()
    _, error = driver.communicate(timeout=60)  # to the end of the witness, which holds stderr
    (line,) = error.decode().split("\n\n")[-1].strip().splitlines()
    assert line.startswith(f"rlcore: error: the driver (process {driver.pid} on ")
    assert f"{tmp_path}/checkpoints/step_000040 is saved, and `rlcore train --config " in line
    assert part.wait(60) == -signal.SIGKILL
    wait_until(lambda: not witness.is_running() or witness.status() == psutil.STATUS_ZOMBIE)


def test_a_driver_that_is_killed_before_the_witness_stands_is_spoken_for(
    tmp_path: Path, part: subprocess.Popen[bytes]
) -> None:
    part.kill()
    part.wait()
    command = [sys.executable, "-m", "rlcore.records.witness", str(tmp_path), str(part.pid)]
    told = subprocess.run(command, input=b"", capture_output=True, timeout=60)
    (line,) = told.stderr.decode().strip().splitlines()
    assert line.startswith(f"rlcore: error: the driver (process {part.pid} on ")
    assert line.endswith("No step was saved; the same command begins anew") and told.returncode == 0
    # Of two that are gone at the first look, nobody saw which was first: both are named.
    told = subprocess.run(command, input=b"watch 999999999 the part\n", capture_output=True, timeout=60)
    assert b" was killed, or ended by Ray, and the part (process 999999999 on " in told.stderr


def test_a_run_that_ends_well_ends_without_a_word(
    tmp_path: Path, part: subprocess.Popen[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    with witnessed(tmp_path) as witness, StopFlag() as stop:
        with witness.watch({"part": part.pid}, stop):
            pass
        part.kill()  # Ray is ended, as it should be
        part.wait()
    assert witness.finding is None and capfd.readouterr() == ("", "")


def test_errors_keep_their_class_and_defects_are_told_what_is_saved(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"^mine$"), witnessed(tmp_path):
        raise DataError("mine")
    assert capfd.readouterr().err == ""
    with pytest.raises(ZeroDivisionError), witnessed(tmp_path):
        raise ZeroDivisionError
    assert capfd.readouterr().err == f"rlcore: {what_is_saved(tmp_path)}\n"


def test_of_several_that_are_dead_at_one_look_all_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    observer = Observer(tmp_path, os.getpid())
    for number in (1, 2):
        observer.watch(f"part {number}", 999_999_990 + number)
    observer.watch("this one", os.getpid())
    observer.look()
    assert re.fullmatch(
        r"part 1 \(process 999999991 on \S+\) died, and part 2 \(process 999999992 on \S+\) died",
        str(observer.finding),
    )
    assert capfd.readouterr().err.count("died") == 2


def test_a_stopped_part_is_taken_for_dead_once_it_was_stopped_for_long(
    tmp_path: Path, part: subprocess.Popen[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    observer = Observer(tmp_path, os.getpid())
    observer.watch("part", part.pid)

    def look(times: int) -> None:
        for _ in range(times):
            observer.look()

    def pause(number: signal.Signals, state: str) -> None:
        part.send_signal(number)
        wait_until(lambda: psutil.Process(part.pid).status() == state)

    pause(signal.SIGSTOP, psutil.STATUS_STOPPED)
    look(FROZEN_LOOKS - 1)
    pause(signal.SIGCONT, psutil.STATUS_SLEEPING)
    look(1)
    pause(signal.SIGSTOP, psutil.STATUS_STOPPED)
    look(FROZEN_LOOKS - 1)
    assert observer.finding is None
    look(1)
    assert observer.finding is not None and "is stopped (SIGSTOP) for 15 s" in observer.finding
    assert f"stop {observer.finding}\n" == capfd.readouterr().out


def test_beside_a_stopped_driver_the_death_of_a_part_keeps_nobody_busy(
    tmp_path: Path, part: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead process's file descriptor is readable at once, again and again."""
    waited_for: list[list[int]] = []

    def select(readable: list[int], *_: object) -> tuple[list[int], list[int], list[int]]:
        waited_for.append(readable)
        if len(waited_for) == 3:
            raise InterruptedError
        return [], [], []

    monkeypatch.setattr(witness, "select", SimpleNamespace(select=select))
    part.send_signal(signal.SIGSTOP)
    wait_until(lambda: psutil.Process(part.pid).status() == psutil.STATUS_STOPPED)
    observer = Observer(tmp_path, part.pid)
    observer.watch("part", os.getpid())
    with pytest.raises(InterruptedError):
        observer.run()
    assert waited_for == [[0]] * 3
