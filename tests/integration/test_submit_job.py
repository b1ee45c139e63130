"""`rlcore submit` against a cluster of its own: what is refused, a run that is stopped, its second half."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from loop_cases import loop_config
from tiny_models import make_text

from rlcore.config import save_config
from rlcore.records import checkpoint
from rlcore.records.tracking import read_metrics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

SUPPORT = Path(__file__).resolve().parents[1] / "support"
BIN = Path(sys.executable).parent
NUM_STEPS = 24


@dataclass(frozen=True, kw_only=True)
class Head:
    """A cluster of one node on the loopback, that asks for a token."""

    address: str
    environment: dict[str, str]
    folder: Path

    def submit(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "rlcore.cli", "submit", *words],
            cwd=self.folder,
            env={**self.environment, "RAY_API_SERVER_ADDRESS": self.address, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("submit")
    (folder / "token").write_text(secrets.token_hex(32))
    (folder / "other_token").write_text(secrets.token_hex(32))
    # Ray's sockets lie there, and their paths must be short.
    ray_folder = tempfile.mkdtemp(prefix="ray")
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(SUPPORT.parents[1]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = ["ray", "start", "--head", "--block", "--num-cpus", "2", "--disable-usage-stats"]
    command += ["--node-ip-address", "127.0.0.1", "--temp-dir", ray_folder]
    for name, port in ports.items():
        command += [f"--{name}", str(port)]
    work = folder / "work"
    write_work(work, folder)
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for_port(ports["dashboard-port"], process)
        yield Head(
            address=f"http://127.0.0.1:{ports['dashboard-port']}", environment=environment, folder=work
        )
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(ray_folder, ignore_errors=True)


def write_work(work: Path, folder: Path) -> None:
    """A project of someone's: code, a configuration of the run, one of the cluster."""
    work.mkdir()
    for name in ("loop_cases.py", "tiny_models.py"):
        shutil.copy(SUPPORT / name, work)
    config = loop_config(Path("runs/first"), make_text(folder / "model"))
    slow = replace(
        config.rewards["even"], target="loop_cases:slow_even_tokens"
    )  # else it ends before the stop
    config = replace(config, rewards={"even": slow}, train=replace(config.train, num_steps=NUM_STEPS))
    save_config(config, work / "run.yaml")
    (work / "cluster.yaml").write_text(f"cluster: {{job: {{storage: {folder}, stop_timeout_s: 60}}}}\n")


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"no dashboard; ray start: {process.poll()}")


RUN = ("--config", "run.yaml", "--config", "cluster.yaml")


def test_a_job_is_refused_stopped_and_resumed(head: Head) -> None:
    began = time.monotonic()
    run_dir = head.folder.parent / "runs" / "tuesday"
    running = head.submit(*RUN, "--run-id", "tuesday")
    wrong_token = head.submit(*RUN, RAY_AUTH_TOKEN_PATH=str(head.folder.parent / "other_token"))
    too_large = head.submit(*RUN, "rollout.num_replicas=9")
    # Only the job itself can find out that its nodes lack what they were said to have.
    missing = head.submit(*RUN, "cluster.job.secrets.NO_KEY=cluster", "task.args.key=${oc.env:NO_KEY}")

    answer, _ = wrong_token.communicate(timeout=60)
    assert wrong_token.returncode == 1 and "refuses this terminal's token" in answer, answer
    answer, _ = too_large.communicate(timeout=60)
    assert too_large.returncode == 1 and "9 x rollout" in answer and "3.6 CPU" not in answer, answer
    assert "the cluster cannot hold the run" in answer and "2 CPU" in answer, answer

    while not (run_dir / "metrics.jsonl").is_file() or len(read_metrics(run_dir)) < 2:
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() - began < 200
        time.sleep(0.1)
    print(f"first update {time.monotonic() - began:.1f} s after submit")
    environment = {**head.environment, "RAY_API_SERVER_ADDRESS": head.address}
    stop = subprocess.Popen([str(BIN / "ray"), "job", "stop", "tuesday", "--no-wait"], env=environment)
    answer, _ = missing.communicate(timeout=60)
    assert missing.returncode == 2 and "NO_KEY" in answer, answer
    answer, _ = running.communicate(timeout=120)
    assert stop.wait(60) == 0
    assert running.returncode == 130, answer
    assert "tuesday: job tuesday on http" in answer, answer
    assert "job tuesday was stopped" in answer
    last = checkpoint.complete(run_dir / "checkpoints")[-1]
    num_done = int(last.name.removeprefix("step_"))
    assert 1 <= num_done < NUM_STEPS and f"stopped by SIGTERM after step {num_done};" in answer
    print(f"stopped after step {num_done} of {NUM_STEPS}")
    done = read_metrics(run_dir)

    again = head.submit(*RUN, "--run-id", "tuesday")
    resumed = head.submit(*RUN, "--run-id", "tuesday", "--resume")
    answer, _ = again.communicate(timeout=60)
    assert again.returncode == 1 and "run tuesday " in answer, answer
    answer, _ = resumed.communicate(timeout=200)
    assert resumed.returncode == 0 and "job tuesday.2 on" in answer, answer
    rows = read_metrics(run_dir)
    assert [row["step"] for row in rows if "policy_version" in row] == list(range(1, NUM_STEPS + 1))
    assert rows[: len(done)] == done  # it went on from there
