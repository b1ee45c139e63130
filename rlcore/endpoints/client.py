"""Clients of HTTP services under the proxies of the environment (`HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).

What a service answers is not known here.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import httpx

from rlcore.errors import ConfigError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of this machine, which no proxy leads to."""


def open_client(
    url: str,
    *,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    verify: ssl.SSLContext | bool = True,
) -> httpx.Client:
    """Returns a client for the host of `url`, which any number of threads may use at once.

    The environment's proxy is not even looked at for this machine and for hosts of `NO_PROXY`: httpx refuses
    to make a client beside a proxy that it cannot use, whether a request would take it or not.

    Raises:
        ConfigError: the environment names a proxy that httpx cannot use.
    """
    # The threads of the caller are the limit of what runs at once.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    host = urlsplit(url).hostname or ""
    is_direct = host in LOOPBACK or proxy_bypass(host)
    transport = httpx.HTTPTransport(verify=verify, limits=limits) if is_direct else None
    try:
        return httpx.Client(
            timeout=timeout_s, headers=headers, verify=verify, limits=limits, transport=transport
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ConfigError(
            f"{url}: the environment names a proxy that cannot be used ({error}); correct or unset "
            f"ALL_PROXY, HTTPS_PROXY and HTTP_PROXY, or name {host or 'the host'} in NO_PROXY; a "
            "socks5:// proxy needs pip install 'httpx[socks]'"
        ) from error
