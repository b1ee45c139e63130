"""Runs a real HTTP(S) server of the standard library, on a free port of this machine, for the time of a
test."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, dict[str, str], Any], tuple[int, dict[str, str], str]]
"""Function from (path, headers in lower case, JSON body) to (status, headers, text)."""


@contextmanager
def service(answer: Answer, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serves POST requests with `answer` and yields the server's address, without a path."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, extra, text = answer(self.path, headers, json.loads(body))
            data = text.encode()
            self.send_response(status)
            for name, value in {**extra, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def raw_service(pieces: Callable[[], Sequence[bytes]], *, pause_s: float = 0.01) -> Iterator[str]:
    """Serves whatever bytes `pieces` gives to each request, one piece after the other, and hangs up; yields
    the server's address."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            while (line := self.rfile.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            self.rfile.read(length)
            try:
                for index, piece in enumerate(pieces()):
                    time.sleep(pause_s if index else 0)
                    self.wfile.write(piece)
            except OSError:
                pass  # whoever asked has heard enough

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(5)
