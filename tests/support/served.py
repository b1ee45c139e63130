"""A front with its page, on a port of this machine, whose model is one fixed answer. All else is real: HTTP,
limits, measuring, claims and curves."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from emotion_task.prosody.calibrate import Calibration, Cuts
from emotion_task.serve.ask import Ask
from emotion_task.serve.config import ServeConfig
from emotion_task.serve.explanation import explanation_of
from emotion_task.serve.front import Front
from emotion_task.serve.recording import curves_of, measured_utterance

ANSWER = (
    "<think>The speaker is a woman. The energy is low and the pitch sounds high. The rate is slow. "
    "The melody stays flat. This points to sad.</think><answer>sad</answer>"
)
ODDS = {"sad": 0.91, "neutral": 0.06, "fear": 0.02, "happy": 0.01}
CUTS = Calibration(
    (33.3, 66.7),
    {
        "pitch": {"all/male": Cuts(115, 142, 99), "all/female": Cuts(193, 237, 99)},
        "energy": {"all": Cuts(-31.0, -26.0, 99)},
        "speed": {"all/text": Cuts(4.1, 5.0, 99)},
    },
)

Explain = Callable[[Ask], Awaitable[dict[str, Any]]]


async def explain(ask: Ask, answer: str = ANSWER) -> dict[str, Any]:
    """Explains a recording as a replica does, by a fixed answer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        path.write_bytes(ask.recording)
        utterance = measured_utterance(
            path, text=ask.text, gender=ask.gender, calibration=CUTS, max_seconds=30.0
        )
        curves = {"curves": asdict(curves_of(path, utterance.measured or {}))} if ask.curves else {}
    return {
        **explanation_of(answer, ODDS, utterance, list(ODDS)),
        "finish_reason": "stop",
        "heard_s": (utterance.measured or {})["duration_s"],
        "tokens": {"prompt": 90, "completion": 40},
        "seconds": {"measuring": 0.1, "all": 0.2},
        **curves,
    }


async def ready() -> None:
    """Is always ready."""


def front_app(explain: Explain = explain, *, token: str | None = None, **settings: Any) -> Starlette:
    """Returns a front as an ASGI application."""
    front = Front(ServeConfig(**settings), explain=explain, check=ready, token=token, model="tiny")

    async def answer(request: Request) -> Response:
        return await front.answer(request)

    methods = ["GET", "HEAD", "POST", "PUT", "DELETE"]
    return Starlette(routes=[Route("/{path:path}", answer, methods=methods)])


@contextmanager
def listening(app: Starlette) -> Iterator[str]:
    """Serves an application on a free port, and yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the front did not come up"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)
