"""How a run ends whose terminal closes, and whose output nobody reads any more; and who can reach it while it
runs. `make chaos` ends runs whose Ray dies."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from loop_cases import loop_config
from tiny_models import make_text

from rlcore.config import RunConfig, save_config
from rlcore.records import checkpoint
from rlcore.records.tracking import read_metrics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

SUPPORT = Path(__file__).resolve().parents[1] / "support"


STARTED: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """Ends, after a test that failed, what it has started."""
    yield
    while STARTED:
        STARTED.pop().kill()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run that would go on for days."""
    folder = tmp_path_factory.mktemp("ends")
    config = loop_config(folder / "run", make_text(folder / "text"))
    config = replace(config, train=replace(config.train, num_steps=100_000, checkpoint_every=1000))
    save_config(config, folder / "run.yaml")
    return config


def start(config: RunConfig, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
    """`rlcore train`, as a terminal starts it: the first of a process group of its own."""
    folder = Path(config.run_dir).parent
    command = [sys.executable, "-m", "rlcore.cli", "train", "--config", str(folder / "run.yaml"), *words]
    path = f"{SUPPORT}{os.pathsep}{SUPPORT.parents[1]}"
    environment = {**os.environ, "PYTHONPATH": path}
    running = subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may be under nohup
        **streams,
    )
    STARTED.append(running)
    num_before = len(steps(config))
    wait_until(lambda: running.poll() is not None or len(steps(config)) > num_before + 2)
    assert running.poll() is None
    return running


def steps(config: RunConfig) -> list[int]:
    is_there = (Path(config.run_dir) / "metrics.jsonl").is_file()
    rows = read_metrics(Path(config.run_dir)) if is_there else []
    return [row["step"] for row in rows if "policy_version" in row]


def wait_until(is_there: Callable[[], object], timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_there():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def processes_of(running: subprocess.Popen[bytes]) -> dict[int, psutil.Process]:
    driver = psutil.Process(running.pid)
    return {process.pid: process for process in (driver, *driver.children(recursive=True))}


def living(processes: dict[int, psutil.Process]) -> list[str]:
    alive = [process for process in processes.values() if process.is_running()]
    return [process.name() for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_a_closed_terminal_leaves_a_checkpoint_and_nothing_else(config: RunConfig) -> None:
    running = start(config, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()  # as `| head -1` does
    running.stderr.close()
    num_steps = len(steps(config))
    wait_until(lambda: len(steps(config)) > num_steps + 2)

    processes = processes_of(running)
    sockets = {
        (process.name(), listening.laddr.ip.removeprefix("::ffff:"))
        for process in processes.values()
        for listening in process.net_connections("inet")
        if listening.status == psutil.CONN_LISTEN
    }
    assert {name for name, _ in sockets} >= {"gcs_server", "raylet"}
    assert {address for _, address in sockets} == {"127.0.0.1"}, sockets
    (gcs,) = (process for process in processes.values() if process.name() == "gcs_server")
    (logs,) = (word.partition("=")[2] for word in gcs.cmdline() if word.startswith("--log_dir="))
    for closed in (config.run_dir, Path(logs).parents[2]):
        assert stat.S_IMODE(os.stat(closed).st_mode) == 0o700, closed
    token = Path.home() / ".ray" / "auth_token"
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in (token.parent, token)] == [0o700, 0o600]
    secret = token.read_text().strip()
    assert not any(secret in " ".join(process.cmdline()) for process in processes.values())

    os.killpg(running.pid, signal.SIGHUP)
    assert running.wait(300) == 130
    (saved,) = checkpoint.complete(Path(config.run_dir) / "checkpoints")
    assert int(saved.name.removeprefix("step_")) == steps(config)[-1]
    wait_until(lambda: not living(processes))
    assert not [path for path in os.listdir("/dev/shm") for pid in processes if f"weights-{pid}-" in path]
