"""The Ray session that a run's actors live in: the job's cluster, or a local one for the length of the
run, which nobody else on the machine or the network can reach."""

from __future__ import annotations

import logging
import os
import re
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import ray_constants
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

from rlcore.config import ClusterConfig
from rlcore.errors import ConfigError, DeadlineError
from rlcore.records.progress import tell

log = logging.getLogger(__name__)

_HIDE_GPUS = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
"""Has Ray show no GPU to actors and tasks that asked for none. By itself Ray 2.60 shows them all, and the
first one is some other actor's."""
_NOT_IN_TIME = "timed out during startup"
"""Words of an exception of ray._private.node that has no type of its own."""
_AGENTS = {
    "DashboardAgent": r"dashboard/agent\.py|DashboardAgent",
    "RuntimeEnvAgent": r"runtime_env/agent/|RuntimeEnvAgent",
}
"""The raylet's helpers, without which it ends itself, and what their command lines say, before and after they
have a title."""


@contextmanager
def ray_session(cluster: ClusterConfig) -> Iterator[None]:
    """Holds a Ray session for the length of the block: the job's cluster where there is one, else a local one
    on loopback. A session that is initialised already is joined, and left running.

    Raises:
        DeadlineError: the machine is too busy to start a local Ray in the time that Ray gives itself.
        ConfigError: the folder for Ray's temporary files is another user's, or the address is one of Ray
            Client, whose drivers see neither the cluster's store nor its processes.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if address is not None and address.startswith("ray://"):
        raise ConfigError(
            f"cluster.address (or RAY_ADDRESS): got {address}, an address of Ray Client; name the cluster's "
            "own (HOST:6379) on one of its nodes, or submit the run from here (rlcore submit)"
        )
    options: dict[str, Any] = {"logging_level": "WARNING", "log_to_driver": cluster.log_to_driver}
    tell("starting Ray on this machine" if address is None else f"joining the Ray cluster {address}")
    try:
        if address is not None:
            # A job's own environment may say it already; Ray refuses to be told twice.
            if _HIDE_GPUS not in os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR, ""):
                options["runtime_env"] = {"env_vars": {_HIDE_GPUS: "1"}}
            ray.init(address=cluster.address, **options)
        else:
            os.environ.setdefault(_HIDE_GPUS, "1")
            _start(cluster.num_cpus, options)
    except Exception as error:
        if _NOT_IN_TIME not in str(error):
            raise
        raise DeadlineError(
            f"Ray did not start on this machine within the 30 s that it gives itself; the load is "
            f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores. A process of Ray died meanwhile, as its "
            "logs would say, or too much runs beside it"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def has_gpus() -> bool:
    """Tells whether the cluster of the present session has GPUs, be they free or not."""
    return bool(ray.cluster_resources().get("GPU", 0.0) >= 1)


def local_processes() -> dict[str, int]:
    """Returns process ids, by name, of the parts of a Ray that this process started and cannot do without;
    empty where it joined a cluster, which looks after its own."""
    node = ray._private.worker._global_node
    if node is None or not node.head:
        return {}
    own = node.all_processes
    servers = {"raylet": own["raylet"], "GCS": own["gcs_server"]}
    found = {name: infos[0].process.pid for name, infos in servers.items()}
    with suppress(psutil.NoSuchProcess):  # the raylet has just ended, and will be missed
        for child in psutil.Process(found["raylet"]).children():
            with suppress(psutil.NoSuchProcess):  # a worker that has just ended
                line = " ".join(child.cmdline())
                found |= {name: child.pid for name, pattern in _AGENTS.items() if re.search(pattern, line)}
    # Agents first: the raylet follows the death of one within moments.
    names = [*_AGENTS, *servers]
    return {f"Ray's {name} of {node.get_session_dir_path()}": found[name] for name in names if name in found}


def _start(num_cpus: float | None, options: dict[str, Any]) -> None:
    """Starts a Ray of this process's own."""
    folder = _private_folder()
    _close_token()
    before = os.environ.get("GLOO_SOCKET_IFNAME"), ray_constants.ENABLE_RAY_CLUSTER
    # Ray takes 127.0.0.1 for a mistake, and the machine's own address in its place, except where it cannot
    # have several nodes.
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # A terminal that closes sends SIGHUP to all of its processes. Ray's inherit this, and leave it to the
    # driver, as they do with Ctrl-C.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        # Said outright: left to itself, Ray would join any cluster that it finds traces of on this machine.
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder / "ray"),
            **options,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        ray_constants.ENABLE_RAY_CLUSTER = before[1]
        if before[0] is None:
            del os.environ["GLOO_SOCKET_IFNAME"]
        _close_token()


def _private_folder() -> Path:
    """Ray opens its temporary folder, with logs and sockets, to every user of the machine. The folder that it
    lies in is closed."""
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / f"rlcore-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
        raise ConfigError(
            f"{folder}: Ray's temporary files go there, and others can get at it: remove it, or set "
            "RAY_TMPDIR to a folder of yours"
        )
    return folder


def _close_token() -> None:
    """Closes Ray's token to other users: Ray makes folder and file with the usual rights."""
    token = Path.home() / ".ray" / "auth_token"
    token.parent.mkdir(mode=0o700, exist_ok=True)
    for path, mode in ((token.parent, 0o700), (token, 0o600)):
        try:
            path.chmod(mode)
        except FileNotFoundError:  # the token, before the first Ray
            continue
        except PermissionError as error:
            log.warning("%s cannot be closed to other users of this machine: %s", path, error)
