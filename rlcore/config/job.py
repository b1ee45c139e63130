"""Settings of a run that is a job of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from rlcore.config.checks import at_least, check, positive, without_tilde
from rlcore.errors import ConfigError

SOURCES = ("submitter", "cluster")
"""Places that a secret's value can come from."""


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """The job that `rlcore submit` brings to a cluster (docs/guides/cluster.md)."""

    address: str | None = None
    """Address of the dashboard, as `http://HOST:8265`; null: RAY_API_SERVER_ADDRESS, else
    http://127.0.0.1:8265."""
    storage: str | None = None
    """Absolute folder that the nodes share; a relative `run_dir` lies below."""
    working_dir: str = "."
    """Folder that the job runs in a copy of, without what .gitignore and .rayignore name."""
    exclude: tuple[str, ...] = (".git", "/runs", "/checkpoints", "/data")
    """Parts of `working_dir` that stay here; patterns as in .gitignore."""
    max_mb: float = 100.0
    """Largest size of the copy before compression, in MB; Ray takes 512 at most."""
    pip: tuple[str, ...] = ()
    """Packages that the job needs beside the nodes' own."""
    env_vars: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the job and its actors."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Name of an environment variable to the place of its value: `submitter` (this terminal; the value
    travels with the job) or `cluster` (the nodes have the variable)."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Notes that `ray job list` shows."""
    num_cpus: float = 0.0
    """CPUs of the driver, on whichever node has them; 0: the driver runs on the head, and takes none."""
    autoscales: bool = False
    """Nodes come on demand: a run is not measured against the nodes that are there."""
    stop_timeout_s: int = 120
    """Seconds that a stopped job may take for its step and its checkpoint."""
    timeout_s: float = 30.0
    """Seconds that an answer of the dashboard may take."""

    def __post_init__(self) -> None:
        known = self.address is None or is_dashboard(self.address)
        check(known, "address", self.address, "the dashboard's, as http://HOST:8265, or null")
        without_tilde(self, "working_dir")
        absolute = self.storage is None or PurePosixPath(self.storage).is_absolute()
        check(absolute, "storage", self.storage, "an absolute path, or null")
        check(0 < self.max_mb <= 512, "max_mb", self.max_mb, "above 0 and at most 512")
        for name, source in self.secrets.items():
            if source not in SOURCES:  # what stands there may be the secret itself: it is not shown
                raise ConfigError(f"secrets.{name}: must be one of {', '.join(SOURCES)}, never the value")
        at_least(self, 0, "num_cpus")
        at_least(self, 1, "stop_timeout_s")
        positive(self, "timeout_s")


def is_dashboard(address: str) -> bool:
    """Tells whether a text may be the address of a dashboard."""
    try:
        url = urlsplit(address)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        return False
