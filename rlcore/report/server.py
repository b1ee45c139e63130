"""The page of a run that goes on, served from its folder to this machine alone.

    GET /TOKEN/                     the page
    GET /TOKEN/head                 state, headline, alarms, figures of all runs
    GET /TOKEN/RUN/metrics          and timeline, samples, recordings: what the page asks for when it needs it
    GET /TOKEN/RUN/detail?at=N      what the task draws of the N-th sample that the page has
    GET /TOKEN/RUN/sound?at=N&i=0   a recording of that sample

Who does not know the token is told nothing (404), and a request that names another host than this machine is
refused, as pages of strangers make them (DNS rebinding). Nothing is written.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web

from rlcore.records.files import JsonObject, finite
from rlcore.report.page import document, head, sound_paths
from rlcore.report.run_data import Run
from rlcore.report.sample_table import table_of
from rlcore.report.samples import Entry, choose

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Watch:
    """The server of the page of one or more runs. Requests are answered one after another, as they read the
    same files.

    Args:
        max_samples: rows of samples.jsonl that the page shows at most of each run.
    """

    def __init__(self, folders: Sequence[Path], *, max_samples: int):
        self.token = secrets.token_urlsafe(24)
        self._runs = [Run(folder, max_samples=max_samples) for folder in folders]
        self._max_samples = max_samples
        self._chosen: dict[int, list[Entry]] = {}
        """Rows that the page was given of each run: it names them by number."""
        self._lock = asyncio.Lock()

    def application(self) -> web.Application:
        """Returns the aiohttp application."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/{token}/", self._page)
        app.router.add_get("/{token}/head", self._json(lambda request: self._head()))
        app.router.add_get("/{token}/{run:\\d+}/metrics", self._json(lambda r: self._run(r).metrics()))
        app.router.add_get("/{token}/{run:\\d+}/timeline", self._json(lambda r: self._run(r).timeline()))
        app.router.add_get("/{token}/{run:\\d+}/samples", self._json(self._samples))
        app.router.add_get("/{token}/{run:\\d+}/detail", self._json(self._detail))
        app.router.add_get("/{token}/{run:\\d+}/sound", self._sound)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
        if host not in LOOPBACK:
            raise web.HTTPForbidden(text="this page is for the machine that it runs on")
        token = request.match_info.get("token", "")
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            raise web.HTTPNotFound()
        response = await handler(request)
        response.headers["Cache-Control"] = "no-store"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Frame-Options"] = "DENY"
        return response

    def _run(self, request: web.Request) -> Run:
        number = int(request.match_info["run"])
        if number >= len(self._runs):
            raise web.HTTPNotFound()
        return self._runs[number]

    def _head(self) -> JsonObject:
        return head(self._runs, [run.head() for run in self._runs]) | {"live": True}

    async def _page(self, request: web.Request) -> web.Response:
        async with self._lock:
            found = await asyncio.to_thread(self._head)
        title = " and ".join(run.name for run in self._runs)
        return web.Response(text=document(title, self._runs, found), content_type="text/html")

    def _json(self, make: Callable[[web.Request], object]) -> _Handler:
        async def answer(request: web.Request) -> web.Response:
            async with self._lock:
                found = await asyncio.to_thread(make, request)
            response = web.json_response(found)
            response.enable_compression()
            return response

        return answer

    def _samples(self, request: web.Request) -> JsonObject:
        run, number = self._run(request), int(request.match_info["run"])
        run.samples.refresh()
        self._chosen[number] = choose(run.samples.entries, self._max_samples)
        rows = run.samples.rows(self._chosen[number]) if self._chosen[number] else []
        return table_of(rows, len(run.samples.entries), run.outcome, None).columns

    def _row(self, request: web.Request) -> JsonObject:
        """Returns the row that the page knows by the number `at`."""
        run, chosen = self._run(request), self._chosen.get(int(request.match_info["run"]), [])
        at = request.query.get("at", "")
        if not at.isdecimal() or int(at) >= len(chosen):
            raise web.HTTPNotFound()
        rows = run.samples.rows([chosen[int(at)]])
        if not rows:  # the run goes on from an earlier checkpoint, and has dropped it
            raise web.HTTPNotFound()
        return rows[0]

    def _detail(self, request: web.Request) -> object:
        row, panels = self._row(request), self._run(request).panels
        if panels is None:
            return {"sample": None, "prompt": None}
        return finite({"sample": panels.of_sample(row), "prompt": panels.of_prompt(row)})

    async def _sound(self, request: web.Request) -> web.StreamResponse:
        async with self._lock:
            row = await asyncio.to_thread(self._row, request)
        paths, number = sound_paths(row.get("media") or {}), request.query.get("i", "0")
        if not number.isdecimal() or int(number) >= len(paths) or not Path(paths[int(number)]).is_file():
            raise web.HTTPNotFound()
        return web.FileResponse(paths[int(number)])


async def serve(watch: Watch, port: int, started: Callable[[str], None]) -> None:
    """Serves on 127.0.0.1 until it is cancelled, and tells `started` the address with its token.

    Args:
        port: 0 takes one that is free.
    """
    runner = web.AppRunner(watch.application(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        started(f"http://127.0.0.1:{runner.addresses[0][1]}/{watch.token}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
