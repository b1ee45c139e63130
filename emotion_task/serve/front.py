"""The front of the service: who may ask, how much, how long; what was asked becomes an `Ask` for a replica.

Bodies are read no further than the limit, requests are counted from their first byte, and every wait has the
request's deadline. This module knows no model and no Ray: replicas are one asynchronous function.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from emotion_task.serve.ask import Ask
from emotion_task.serve.chat import chat_completion, model_list
from emotion_task.serve.config import ServeConfig
from emotion_task.serve.metrics import ServeMetrics
from emotion_task.serve.refused import TOO_LARGE, Refused
from emotion_task.serve.requests import chat_ask, form_ask

log = logging.getLogger(__name__)

_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/recorder.js": ("recorder.js", "text/javascript"),
}
_LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}
_HEALTH_S = 5.0
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src blob:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Permissions-Policy": "microphone=(self)",
}


class Front:
    """Answers HTTP requests.

    Args:
        explain: gives an `Ask` to a replica, and returns its explanation; raises Refused.
        check: raises where no replica is fit to answer.
        token: bearer token that clients must send; None where whoever is on this machine may ask.
        model: name of the model, for clients.
    """

    def __init__(
        self,
        config: ServeConfig,
        *,
        explain: Callable[[Ask], Awaitable[dict[str, Any]]],
        check: Callable[[], Awaitable[None]],
        token: str | None,
        model: str,
    ):
        self._config, self._token, self._model = config, token, model
        self._explain, self._check = explain, check
        self._num_requests = 0
        self._metrics = ServeMetrics()
        folder = files("emotion_task.serve") / "page"
        self._page = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _PAGE.items()}
        self._routes: dict[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
            **{path: ("GET", self._served_page) for path in _PAGE},
            "/health": ("GET", self._health),
            "/metrics": ("GET", self._served_metrics),
            "/v1/models": ("GET", self._models),
            "/v1/explain": ("POST", self._explained),
            "/v1/chat/completions": ("POST", self._chatted),
        }

    async def answer(self, request: Request) -> Response:
        """Answers one request. What is refused gets a status and a sentence, what fails a number to look for
        in the log."""
        start, path = time.perf_counter(), request.url.path
        try:
            response = await self._routed(request)
        except Refused as error:
            response = self._refusal(error.status, error.reason)
        except ClientDisconnect:
            response = self._refusal(400, "The request ended before its body was whole.")
        except Exception:  # the boundary: nobody outside sees a traceback
            number = uuid.uuid4().hex[:12]
            log.exception("request %s failed", number)
            response = self._refusal(500, f"This request failed; the service's log tells why under {number}.")
        self._metrics.count(path if path in self._routes else "other", response.status_code)
        if path.startswith("/v1/") and request.method == "POST":
            self._metrics.time(time.perf_counter() - start)
        response.headers.update(_HEADERS)
        return response

    async def _routed(self, request: Request) -> Response:
        path = request.url.path
        if path not in self._routes:
            raise Refused(404, f"There is nothing here; there are {', '.join(self._routes)}.")
        method, route = self._routes[path]
        if request.method != method and not (method == "GET" and request.method == "HEAD"):
            raise Refused(405, f"This address takes {method}.")
        self._check_origin(request)
        if path not in _PAGE and path != "/health":
            self._check_token(request)
        return await route(request)

    def _check_origin(self, request: Request) -> None:
        """Refuses what other websites have a visitor's browser send here, and a name that another website has
        led to this machine."""
        host = request.headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self._token is None and name not in _LOOPBACK:
            raise Refused(403, "Without a token this service answers to localhost alone.")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refused(403, "This service answers to no other website's pages.")

    def _check_token(self, request: Request) -> None:
        if self._token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token.encode())
        if scheme.lower() != "bearer" or not is_right:
            raise Refused(401, "A token is needed: send the header `Authorization: Bearer TOKEN`.")

    async def _explained(self, request: Request) -> Response:
        async def ask(body: bytes) -> Ask:
            return await form_ask(body, request.headers, request.query_params)

        return JSONResponse({"model": self._model, **await self._worked(request, ask)})

    async def _chatted(self, request: Request) -> Response:
        async def ask(body: bytes) -> Ask:
            return chat_ask(body, self._config.max_tokens)

        return JSONResponse(chat_completion(self._model, await self._worked(request, ask)))

    async def _worked(self, request: Request, read: Callable[[bytes], Awaitable[Ask]]) -> dict[str, Any]:
        """Has a replica explain what a request brings, unless too many are there, within the deadline."""
        if self._num_requests >= self._config.max_requests:
            raise Refused(
                429, f"{self._num_requests} requests are being worked on; send it again in a second."
            )
        self._num_requests += 1
        self._metrics.waiting(self._num_requests)
        try:
            explained = await asyncio.wait_for(
                self._read_and_explained(request, read), self._config.timeout_s
            )
        except asyncio.TimeoutError as error:
            seconds = f"{self._config.timeout_s:g} s"
            raise Refused(504, f"There was no answer within {seconds}; the request was given up.") from error
        finally:
            self._num_requests -= 1
            self._metrics.waiting(self._num_requests)
        self._metrics.explained(explained)
        return explained

    async def _read_and_explained(
        self, request: Request, read: Callable[[bytes], Awaitable[Ask]]
    ) -> dict[str, Any]:
        return await self._explain(await read(await self._body(request)))

    async def _body(self, request: Request) -> bytes:
        most = self._config.max_bytes
        too_large = Refused(TOO_LARGE, f"The request is too large: at most {most / 1e6:g} MB are taken.")
        told = request.headers.get("content-length", "")
        if told.isdecimal() and int(told) > most:
            raise too_large
        chunks, size = [], 0
        async for chunk in request.stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                raise too_large
        if told.isdecimal() and size != int(told):
            raise Refused(400, f"The body is cut off: {told} bytes were told, {size} arrived.")
        return b"".join(chunks)

    async def _served_page(self, request: Request) -> Response:
        content, kind = self._page[request.url.path]
        return Response(content, media_type=f"{kind}; charset=utf-8")

    async def _health(self, request: Request) -> Response:
        try:
            await asyncio.wait_for(self._check(), _HEALTH_S)
        except Exception as error:
            log.warning("not healthy: %r", error)
            raise Refused(503, "No replica is ready to answer.") from error
        limits = {"seconds": self._config.max_seconds, "megabytes": self._config.max_megabytes}
        return JSONResponse({"status": "ok", "model": self._model, "limits": limits})

    async def _served_metrics(self, request: Request) -> Response:
        content, kind = self._metrics.page()
        return PlainTextResponse(content, media_type=kind)

    async def _models(self, request: Request) -> Response:
        return JSONResponse(model_list(self._model))

    @staticmethod
    def _refusal(status: int, reason: str) -> Response:
        headers = {429: {"Retry-After": "1"}, 503: {"Retry-After": "5"}, 401: {"WWW-Authenticate": "Bearer"}}
        reason = reason.encode("utf-8", "replace").decode("utf-8")
        body = {
            "error": {"message": reason, "type": "invalid_request_error" if status < 500 else "server_error"}
        }
        return JSONResponse(body, status, headers.get(status))
