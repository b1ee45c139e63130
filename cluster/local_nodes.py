"""Starts several Ray nodes on one machine, each with a network, a shared memory and a name of its own.

    python cluster/local_nodes.py -- rlcore train --config my_run.yaml

The program starts three nodes that ask for a token, runs the command on the first (`RAY_ADDRESS` is set), and
ends them: so it tries without a cluster what happens across hosts. Nodes lie in network namespaces that are
joined by a bridge inside another namespace, so this machine's network is not touched. Each node is a process
namespace as well, which ends with its first process: killing that process is like a power cut. Files are
shared.

Where namespaces are not permitted, nodes are told apart by their loopback address alone (`--loopback`).
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

BIN = Path(sys.executable).parent
STARTED = "Ray runtime started"
"""Text that `ray start` prints once its node has started."""

_USER = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
_JOIN_USER = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]

_SETUP = """
set -e
mount -t tmpfs -o size=512m tmpfs /dev/shm
mount --bind "$1" /etc/hosts
hostname "$2"
until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip address add "$3/24" dev eth0
ip link set eth0 up
shift 3
exec "$@"
"""


@dataclass(frozen=True, kw_only=True)
class Node:
    """Holds the resources that a node offers to Ray."""

    num_cpus: float = 1.0
    resources: Mapping[str, float] = field(default_factory=dict)
    """Amounts of Ray's custom resources, by name."""


THREE = (
    Node(resources={"learner_node": 1.0, "reward_node": 1.0}),
    Node(resources={"rollout_node": 1.0}),
    Node(resources={"learner_node": 1.0}),
)
"""Nodes for, in this order, driver and first learner rank, the rollout engines, and the second learner
rank."""


class Hosts(Protocol):
    """Declares what hosts must do; a node's processes run in a host."""

    def address(self, index: int) -> str: ...

    def options(self, *, is_head: bool) -> list[str]:
        """Returns further options of `ray start`."""
        ...

    def start(self, index: int, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Starts the first process of a host, with which the host ends; `options` are those of Popen."""
        ...

    def on_first(self, first: subprocess.Popen[bytes]) -> list[str]:
        """Returns the words before a command that make it run on the first host, whose first process is
        `first`."""
        ...

    def kill(self, host: subprocess.Popen[bytes]) -> None:
        """Kills all processes of a host at once; `host` is its first process."""
        ...

    def close(self) -> None: ...


class Namespaces:
    """Runs hosts `node0`, `node1`, ... in namespaces, with addresses from 10.77.0.10 on and a network card
    `eth0`."""

    environment: Mapping[str, str] = {"GLOO_SOCKET_IFNAME": "eth0"}
    port = 6379

    def __init__(self, folder: Path):
        self._names = folder / "hosts"
        lines = [f"{self.address(index)} node{index}" for index in range(32)]
        self._names.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        # This process holds the bridge; the bridge's network is joined to no other.
        self._switch = subprocess.Popen(["unshare", *_USER, "--net", "--mount", "sleep", "infinity"])
        try:
            wait_until(lambda: _is_apart(self._switch.pid), 10, "a network namespace")
            self._ip("link", "add", "nodes", "type", "bridge")
            self._ip("link", "set", "nodes", "up")
        except BaseException:
            self.close()
            raise

    def address(self, index: int) -> str:
        return f"10.77.0.{10 + index}"

    def options(self, *, is_head: bool) -> list[str]:
        return []

    def start(self, index: int, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        own = ["--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        setup = ["sh", "-c", _SETUP, "setup", str(self._names), f"node{index}", self.address(index)]
        host = subprocess.Popen([*self._join(), "unshare", *own, *setup, *command], **options)
        wait_until(lambda: _is_apart(host.pid, self._switch.pid), 10, f"the network of node{index}")
        self._ip("link", "add", f"node{index}", "type", "veth", "peer", "eth0", "netns", str(host.pid))
        self._ip("link", "set", f"node{index}", "master", "nodes", "up")
        return host

    def on_first(self, first: subprocess.Popen[bytes]) -> list[str]:
        (init,) = psutil.Process(first.pid).children()
        enter = ["nsenter", "--target", str(init.pid), *_JOIN_USER, "--net", "--uts", "--mount", "--pid"]
        return [*enter, "env", f"--chdir={Path.cwd()}"]  # another mount table begins at the root folder

    def kill(self, host: subprocess.Popen[bytes]) -> None:
        host.kill()

    def unplug(self, index: int) -> None:
        """Takes a host's network away, and leaves its processes running."""
        self._ip("link", "set", f"node{index}", "down")

    def close(self) -> None:
        self._switch.kill()
        self._switch.wait(10)

    def _join(self) -> list[str]:
        return ["nsenter", "--target", str(self._switch.pid), *_JOIN_USER, "--net", "--mount"]

    def _ip(self, *words: str) -> None:
        subprocess.run([*self._join(), "ip", *words], check=True, capture_output=True, timeout=10)


class Loopback:
    """Runs hosts that share everything but their address, from 127.0.0.11 on."""

    environment: Mapping[str, str] = {"GLOO_SOCKET_IFNAME": "lo"}

    def __init__(self, folder: Path):
        self.port, *self._ports = _free_ports(2)

    def address(self, index: int) -> str:
        return f"127.0.0.{11 + index}"

    def options(self, *, is_head: bool) -> list[str]:
        own = ["--dashboard-agent-listen-port", str(_free_ports(1)[0])]
        return own + (["--ray-client-server-port", str(self._ports[0])] if is_head else [])

    def start(self, index: int, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, **options)

    def on_first(self, first: subprocess.Popen[bytes]) -> list[str]:
        return []

    def kill(self, host: subprocess.Popen[bytes]) -> None:
        with suppress(psutil.NoSuchProcess):
            for process in [*psutil.Process(host.pid).children(recursive=True), psutil.Process(host.pid)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def close(self) -> None:
        pass


class LocalNodes:
    """Runs Ray nodes as a context manager: `nodes` have started at its beginning and are gone at its end.

    The first node is the head."""

    def __init__(self, nodes: Sequence[Node] = THREE, *, loopback: bool = False, object_store_mb: int = 100):
        # Ray's sockets lie there, and their paths must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="nodes"))
        self._nodes, self._object_store_mb = nodes, object_store_mb
        self._token = self.folder / "token"
        self._token.write_text(secrets.token_hex(32))
        self._token.chmod(0o600)
        self._started: dict[int, subprocess.Popen[bytes]] = {}
        self._commands: list[subprocess.Popen[Any]] = []
        self.hosts: Namespaces | Loopback = (Loopback if loopback else Namespaces)(self.folder)
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token),
            "RAY_ADDRESS": f"{self.hosts.address(0)}:{self.hosts.port}",
            "OMP_NUM_THREADS": "1",
            # A node that is gone is noticed after two seconds, not fifteen.
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_timeout_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
            "RAY_health_check_initial_delay_ms": "0",
            **self.hosts.environment,
        }

    def __enter__(self) -> LocalNodes:
        try:
            self.start(0, self._nodes[0])
            self.wait([0])
            others = range(1, len(self._nodes))
            for index in others:
                self.start(index, self._nodes[index])
            self.wait(others)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, index: int, node: Node) -> None:
        """Starts one more node, without waiting until it has started (`wait`)."""
        address, port = self.hosts.address(index), self.hosts.port
        own = ["--head", f"--port={port}", "--include-dashboard=false"]
        command = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats"]
        command += own if index == 0 else [f"--address={self.hosts.address(0)}:{port}"]
        command += [f"--node-ip-address={address}", f"--num-cpus={node.num_cpus:g}"]
        command += ["--resources", json.dumps(dict(node.resources))]
        command += [f"--object-store-memory={self._object_store_mb * 2**20}"]
        command += [f"--temp-dir={self.folder / str(index)}", *self.hosts.options(is_head=index == 0)]
        environment = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        with self.log(index).open("wb") as log:
            self._started[index] = self.hosts.start(
                index, command, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, indices: Sequence[int], timeout_s: float = 90.0) -> None:
        """Waits until these nodes have started.

        Raises:
            RuntimeError: A node ended or did not start in time; the message holds the node's output.
        """
        deadline = time.monotonic() + timeout_s
        for index in indices:
            while STARTED not in self.log(index).read_text():
                if self._started[index].poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"node{index} did not start: {self.log(index).read_text()}")
                time.sleep(0.1)

    def log(self, index: int) -> Path:
        """Returns the file with the output of a node's `ray start`."""
        return self.folder / f"node{index}.log"

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a command on the first node; `options` are those of Popen."""
        there = self.hosts.on_first(self._started[0])
        self._commands.append(subprocess.Popen([*there, *command], **{"env": self.environment, **options}))
        return self._commands[-1]

    def kill(self, index: int) -> None:
        """Kills a node without any warning to it or to others."""
        node = self._started.pop(index)
        self.hosts.kill(node)
        node.wait(30)

    def close(self) -> None:
        """Ends all nodes and commands, and removes what the nodes wrote. A second call does no harm."""
        for command in self._commands:
            command.kill()
        for index in sorted(self._started, reverse=True):
            self.kill(index)
        self.hosts.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def why_no_namespaces() -> str | None:
    """Returns why namespaces cannot be used on this machine, or None where they can."""
    missing = [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found (util-linux and iproute2 have them)"
    nest = ["unshare", *_USER, "--net", "--mount", "--pid", "--uts", "--fork", "--mount-proc"]
    trial = "mount -t tmpfs tmpfs /dev/shm && ip link add nodes type bridge && ip link add type veth"
    tried = subprocess.run([*nest, "sh", "-c", trial], capture_output=True, text=True, timeout=30)
    return None if tried.returncode == 0 else f"not permitted: {tried.stderr.strip()}"


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Waits until `condition` is true.

    Raises:
        TimeoutError: `timeout_s` passed before; the message names `what`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come up within {timeout_s:g} s")
        time.sleep(0.02)


def _is_apart(pid: int, *others: int) -> bool:
    """Returns whether a process has a network that is neither this process's nor that of `others`."""
    own = os.readlink(f"/proc/{pid}/ns/net")
    return own not in [os.readlink(f"/proc/{other}/ns/net") for other in ("self", *others)]


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loopback", action="store_true", help="without namespaces")
    parser.add_argument("--num-cpus", type=float, default=1.0, help="of each node (1)")
    parser.add_argument("--object-store-mb", type=int, default=200, help="of each node (200)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what runs on the first node, after --")
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("no command: name it after --")
    if not arguments.loopback and (reason := why_no_namespaces()):
        parser.error(f"network namespaces: {reason}; --loopback does without")
    nodes = [Node(num_cpus=arguments.num_cpus, resources=node.resources) for node in THREE]
    with LocalNodes(nodes, loopback=arguments.loopback, object_store_mb=arguments.object_store_mb) as local:
        for index, node in enumerate(nodes):
            print(f"node{index} at {local.hosts.address(index)}: {dict(node.resources)}", flush=True)
        running = local.popen(command)
        # Ctrl-C reaches the command itself, which ends in its own way; a SIGTERM is passed on.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: running.terminate())
        return running.wait()


if __name__ == "__main__":
    sys.exit(main())
