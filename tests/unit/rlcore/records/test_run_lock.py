"""One run a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlcore.config import RunConfig
from rlcore.errors import ConfigError
from rlcore.records.run_lock import LOCK, run_lock
from rlcore.run import train


def test_the_second_is_told_who_has_the_folder_and_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ray_session(*_: object) -> None:
        raise AssertionError("the folder is another's")

    monkeypatch.setattr("rlcore.run.ray_session", ray_session)
    old = tmp_path / "checkpoints" / "step_000001"
    old.mkdir(parents=True)
    with (
        run_lock(tmp_path),
        pytest.raises(ConfigError, match=rf"in use by process {os.getpid()} on .* since 2"),
    ):
        train(RunConfig(run_dir=str(tmp_path)))
    assert old.is_dir()
    with run_lock(tmp_path):
        assert len((tmp_path / LOCK).read_text().splitlines()) == 1


def test_a_process_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys, rlcore.records.run_lock as r\n"
        "r.run_lock(pathlib.Path(sys.argv[1])).__enter__(); os._exit(9)"
    )
    gone = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60)
    assert gone.returncode == 9 and "process" in (tmp_path / LOCK).read_text()
    with run_lock(tmp_path):
        pass


def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    with run_lock(tmp_path):
        assert "cannot be locked" in caplog.text
