"""Where a run's actors live: the job's cluster, or a local one for the length of the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from rlcore.config import ClusterConfig


@contextmanager
def ray_session(cluster: ClusterConfig) -> Iterator[None]:
    """Ray for the length of the block: the job's cluster where there is one, else a local one on loopback.

    Joins what is initialised already, and then leaves it running.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    joins = cluster.address is not None or "RAY_ADDRESS" in os.environ
    options: dict[str, Any] = {"address": cluster.address}
    if not joins:
        # Said outright: left to itself, Ray would join any cluster that it finds traces of on this machine.
        options = {"address": "local", "num_cpus": cluster.num_cpus}
        options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    ray.init(logging_level="WARNING", log_to_driver=cluster.log_to_driver, **options)
    try:
        yield
    finally:
        ray.shutdown()
