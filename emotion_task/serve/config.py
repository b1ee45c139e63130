"""The settings of `emotion serve`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from emotion_task.labels import check_set
from rlcore.config import ClusterConfig
from rlcore.config.checks import at_least, one_of, positive, without_tilde
from rlcore.config.io import Arguments, check
from rlcore.config.rollout import check_engine, check_engine_gpus


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Configures the service (docs/guides/serve.md)."""

    host: str = "127.0.0.1"
    """Address that is listened on. Any but a loopback address needs a token."""
    port: int = 8000
    token_env: str = "EMOTION_SERVE_TOKEN"
    """Environment variable that holds the clients' bearer token, wherever the front runs. Without that
    variable a loopback address serves whoever is on this machine."""
    replicas: int = 1
    """Number of engines, each in an actor."""
    num_cpus: float = 1.0
    """CPUs of a replica."""
    num_gpus: float | None = None
    """GPUs of a replica; null: one where the cluster has any, else none."""
    dtype: str | None = None
    """Number format of the weights, `float32` or `bfloat16`; null: bfloat16 on GPUs, else float32."""
    engine: Arguments = field(default_factory=dict)
    """Further vLLM engine arguments. `max_num_seqs` bounds the answers that are written at once;
    `max_model_len` is by default what the longest recording needs."""
    labels: tuple[str, ...] | None = None
    """Options of the question; null: those that the model was trained with, else the paper's nine."""
    calibration: str | None = None
    """Cut points of low, normal and high; null: the `calibration.json` beside the model, if any."""
    max_tokens: int = 256
    """Longest answer."""
    max_seconds: float = 30.0
    """Longest recording."""
    max_megabytes: float = 8.0
    """Largest request."""
    max_requests: int = 128
    """Requests that are worked on or wait at once; more are refused with 429."""
    timeout_s: float = 60.0
    """Seconds from the first byte of a request until it is answered, or given up with 504."""
    drain_s: float = 20.0
    """Seconds that requests have to finish once the service is told to end."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        check(0 < self.port < 65536, "port", self.port, "1 to 65535")
        for name in ("replicas", "max_tokens", "max_requests"):
            at_least(self, 1, name)
        positive(self, "num_cpus", "max_seconds", "max_megabytes", "timeout_s", "drain_s")
        check(self.num_gpus is None or self.num_gpus >= 0, "num_gpus", self.num_gpus, "0 or more, or null")
        without_tilde(self, "calibration")
        if self.dtype is not None:
            one_of(self, "dtype", "float32", "bfloat16")
        check_engine(self.engine, "engine")
        if self.num_gpus is not None:
            check_engine_gpus(self.engine, self.num_gpus, "num_gpus", "engine")
        if self.labels is not None:
            check_set(self.labels, "labels")

    @property
    def max_bytes(self) -> int:
        """Largest request, in bytes."""
        return int(self.max_megabytes * 1e6)

    @property
    def is_private(self) -> bool:
        """Tells whether the address is of this machine alone."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
