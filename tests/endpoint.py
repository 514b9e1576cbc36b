"""An OpenAI-compatible endpoint on this machine that says what a test wants."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-very-secret-key"


@dataclass
class Response:
    """What the server sends; ``raw`` instead of JSON, or ``drop`` to close the connection without a word."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    drop: bool = False


def said(text: str | None, finish: str = "stop") -> Response:
    """A chat completion."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    return Response(body={"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})


def completed(text: str) -> Response:
    """A completion."""
    return Response(
        body={"object": "text_completion", "choices": [{"index": 0, "finish_reason": "stop", "text": text}]}
    )


def refused(status: int, message: str = "", **headers: str) -> Response:
    """An error."""
    return Response(status, {"error": {"message": message}}, {k.replace("_", "-"): v for k, v in headers.items()})


def asked(body: dict[str, Any]) -> str:
    """The last thing the client said."""
    return str(body["prompt"] if "prompt" in body else body["messages"][-1]["content"])


class _QuietServer(ThreadingHTTPServer):
    """Says nothing of a client that is gone."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Server:
    """``answer`` gives the response to a request's body and its number among those that ask the same."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Response]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str] = []
        self.times: list[float] = []
        self.seen: Counter[str] = Counter()
        self.most_at_once = self._now = 0
        self._answer, self._lock = answer, threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"]))
                if len(sent) < int(self.headers["Content-Length"]):  # the client is gone
                    self.close_connection = True
                    return
                body = json.loads(sent)
                with server._lock:
                    number = server.seen[asked(body)]
                    server.seen[asked(body)] += 1
                    server.bodies.append(body)
                    server.paths.append(self.path)
                    server.keys.append(self.headers["Authorization"])
                    server.times.append(time.monotonic())
                    server._now += 1
                    server.most_at_once = max(server.most_at_once, server._now)
                try:
                    response = server._answer(body, number)
                finally:
                    with server._lock:
                        server._now -= 1
                if response.drop:
                    self.close_connection = True
                    return
                content = json.dumps(response.body).encode() if response.raw is None else response.raw
                with suppress(BrokenPipeError, ConnectionResetError):  # the client was killed
                    self.send_response(response.status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    for name, value in response.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


Serve = Callable[[Callable[[dict[str, Any], int], Response]], Server]


def never(*told: object) -> None:
    """Told of what must not happen."""
    raise AssertionError(told)
