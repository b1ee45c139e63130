"""The cluster's end of `rlcore submit`: the dashboard, over HTTP. Every answer has a deadline."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from rlcore.config import JobConfig
from rlcore.config.io import check
from rlcore.config.job import is_dashboard
from rlcore.endpoints.client import LOOPBACK
from rlcore.errors import ClusterError, ConfigError
from rlcore.submit.request import environment

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
DEFAULT_ADDRESS = "http://127.0.0.1:8265"
NO_AGENT = (
    " A cluster that has just come up needs some seconds; else another Ray on the head's machine holds its "
    "agent's port (ray start --dashboard-agent-listen-port, 52365 unless told otherwise)"
)


class JobClient(JobSubmissionClient):
    """Ray's job client, with a deadline of `timeout_s` for each answer."""

    def __init__(self, address: str, *, timeout_s: float):
        self.address, self.timeout_s = address, timeout_s
        super().__init__(address)

    def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> Any:
        # Ray's has none; public ways to give it one there are not.
        with environment(_past_proxies(self.address)):
            return super()._do_request(method, endpoint, **{"timeout": self.timeout_s, **kwargs})

    @property
    def ray_version(self) -> str:
        """The version of Ray that the cluster runs."""
        return str(self._server_ray_version)


def address_of(job: JobConfig) -> str:
    """Returns the dashboard's address: the configuration's, the environment's or that of this machine.

    Raises:
        ConfigError: what was named is no address of a dashboard.
    """
    address = job.address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
    address = (address if "://" in address else f"http://{address}").rstrip("/")
    check(is_dashboard(address), ADDRESS_VARIABLE, address, "the dashboard's, as http://HOST:8265")
    return address


def connect(job: JobConfig) -> JobClient:
    """Returns a client of the cluster, once that has answered, taken the token and told the same Ray.

    Raises:
        ClusterError: the cluster does not answer, refuses the token or runs another Ray.
        ConfigError: the address is no address of a dashboard, or the environment's proxy cannot be used.
    """
    address = address_of(job)
    _knock(address, job.timeout_s)
    try:
        with environment({ADDRESS_VARIABLE: address}):  # which Ray prefers to its argument
            client = JobClient(address, timeout_s=job.timeout_s)
    except AuthenticationError as error:
        raise ClusterError(_refused(address, str(error))) from error
    except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidProxyURL) as error:
        raise ConfigError(
            f"{address}: the environment names a proxy that cannot be used ({error}); correct or unset "
            "ALL_PROXY, HTTPS_PROXY and HTTP_PROXY, or name the host in NO_PROXY; a socks5:// proxy needs "
            "pip install 'requests[socks]'"
        ) from error
    except (requests.RequestException, ConnectionError, RuntimeError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ClusterError(
            f"{address} answers, but not as a Ray dashboard does: {reason}. cluster.job.address must be the "
            "dashboard's (port 8265 unless told otherwise), not the cluster's own"
        ) from error
    if client.ray_version != ray.__version__:
        raise ClusterError(
            f"the cluster at {address} runs Ray {client.ray_version}, this terminal {ray.__version__}; they "
            f"must agree: pip install 'ray[default,train]=={client.ray_version}' here, or bring the nodes to "
            f"{ray.__version__}"
        )
    return client


@contextmanager
def asking(client: JobClient, failed: str) -> Iterator[None]:
    """Turns what Ray raises in the block, for an answer that is missing or no good, into a ClusterError.

    Args:
        failed: what the cluster did not do, for the message: "did not say which nodes it has".
    """
    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(_refused(client.address, str(error))) from error
    except (
        RayStateApiException,
        requests.RequestException,
        ConnectionError,
        RuntimeError,
        ValueError,
    ) as error:
        advice = NO_AGENT if "No available agent" in str(error) else ""
        raise ClusterError(f"{client.address} {failed}: {error}{advice}") from error


def nodes(client: JobClient) -> list[Mapping[str, float]]:
    """Returns the whole resources of each living node, by their names.

    Raises:
        ClusterError: the cluster does not answer in time.
    """
    deadline = time.monotonic() + client.timeout_s
    while True:
        with (
            asking(client, "did not say which nodes it has"),
            environment({ADDRESS_VARIABLE: client.address, **_past_proxies(client.address)}),
        ):
            alive = list_nodes(
                address=client.address,
                filters=[("state", "=", "ALIVE")],
                timeout=max(1, int(client.timeout_s)),
                limit=10_000,
            )
        # A dashboard that has just come up, or is busy, knows of no node for a moment.
        if alive or time.monotonic() > deadline:
            return [dict(node.resources_total) for node in alive]
        time.sleep(0.5)


def _past_proxies(address: str) -> dict[str, str]:
    """Returns the variables under which no proxy of the environment is asked for an address of this machine,
    such as a forwarded port."""
    return {"no_proxy": "*"} if urlsplit(address).hostname in LOOPBACK else {}


def _knock(address: str, timeout_s: float) -> None:
    url = urlsplit(address)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", port), timeout=min(timeout_s, 10.0)).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error}). Is it up, and its dashboard's port forwarded "
            f"(`ray dashboard`, `kubectl port-forward`)? Else set cluster.job.address or {ADDRESS_VARIABLE}"
        ) from error


def _refused(address: str, reason: str) -> str:
    mode = os.environ.get("RAY_AUTH_MODE", "not set")
    held = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else os.environ.get("RAY_AUTH_TOKEN_PATH")
    # Ray's reason is followed by advice of its own, on the same line.
    reason = reason.splitlines()[0].partition(". ")[0]
    return (
        f"the cluster at {address} refuses this terminal's token ({reason}). Both must hold "
        "the same: export RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file with the cluster's token "
        f"(here: RAY_AUTH_MODE {mode}, token from {held or '~/.ray/auth_token'})"
    )
