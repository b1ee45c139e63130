"""The Ray session that a run's actors live in: the job's cluster, or a local one for the length of the
run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from rlcore.config import ClusterConfig
from rlcore.errors import DeadlineError

_NOT_IN_TIME = "timed out during startup"
"""Words of an exception of ray._private.node that has no type of its own."""


@contextmanager
def ray_session(cluster: ClusterConfig) -> Iterator[None]:
    """Holds a Ray session for the length of the block: the job's cluster where there is one, else a local one
    on loopback. A session that is initialised already is joined, and left running.

    Raises:
        DeadlineError: the machine is too busy to start a local Ray in the time that Ray gives itself.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    joins = cluster.address is not None or "RAY_ADDRESS" in os.environ
    options: dict[str, str | float | None] = {"address": cluster.address}
    if not joins:
        # Said outright: left to itself, Ray would join any cluster that it finds traces of on this machine.
        options = {"address": "local", "num_cpus": cluster.num_cpus}
        options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(logging_level="WARNING", log_to_driver=cluster.log_to_driver, **options)
    except Exception as error:
        if _NOT_IN_TIME not in str(error):
            raise
        raise DeadlineError(
            f"Ray did not start on this machine within the 30 s that it gives itself; the load is "
            f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores. Try again when less runs beside it"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
