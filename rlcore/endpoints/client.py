"""Clients of HTTP services under the proxies of the environment (`HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).

What a service answers is not known here.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import httpx

from rlcore.errors import ConfigError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of this machine, which no proxy leads to."""


MAX_BYTES = 64 << 20
"""Bytes of an answer that are read."""


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


def post(client: httpx.Client, url: str, body: Mapping[str, object]) -> httpx.Response:
    """Posts JSON and returns the whole answer.

    The client's time-out is that of each read, so a service that sends a byte now and then would never meet
    it; here it is the most that the answer takes as well.

    Raises:
        httpx.RequestError: no answer, one that is not what its headers say, or one that takes too long.
        ValueError: an answer of more than `MAX_BYTES`.
    """
    limit_s = client.timeout.read
    start, content = time.monotonic(), bytearray()
    with client.stream("POST", url, json=body) as answer:
        for chunk in answer.iter_bytes():
            content += chunk
            if len(content) > MAX_BYTES:
                raise ValueError(f"{url} answered more than {MAX_BYTES >> 20} MiB")
            if limit_s is not None and time.monotonic() - start > limit_s:
                raise httpx.ReadTimeout(
                    f"the answer was not whole after {limit_s:g} s", request=answer.request
                )
    # Other headers are about how it was sent, or name a charset, of which Python knows some that are no text.
    kept = {name: answer.headers[name] for name in ("retry-after",) if name in answer.headers}
    return httpx.Response(answer.status_code, headers=kept, content=bytes(content), request=answer.request)


def read_json(answer: httpx.Response) -> Any:
    """Returns the JSON of an answer.

    Raises:
        ValueError: it is none, or nested too deeply to be read.
    """
    try:
        return json.loads(answer.content)
    except RecursionError as error:
        raise ValueError("the answer is JSON that is nested too deeply") from error
