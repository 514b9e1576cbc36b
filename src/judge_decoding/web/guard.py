"""Who a local page answers: this machine, its own origin, and whoever has the token."""

from __future__ import annotations

import hmac
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
_LOCAL = frozenset({HOST, "localhost", "::1"})


class LocalOnlyMiddleware:
    """Allow the requests of the server's own page, and reject all others.

    The Host must be a name of this machine (which stops DNS rebinding), the Origin, if there is one and always for a
    POST, must be this server, and the token must be right.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            return
        problem = self._problem(scope)
        if problem is not None:
            await _refusal(problem, scope)(scope, receive, send)
            return

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"cache-control", b"no-store"),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                    (b"cross-origin-resource-policy", b"same-origin"),
                ]
            await send(message)

        with suppress(ClientDisconnect):  # a client may disconnect at any time
            await self._app(scope, receive, hardened)

    def _problem(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        with suppress(ValueError):
            if urlsplit(f"//{host}").hostname not in _LOCAL:
                return "This server answers to 127.0.0.1 only; open the address that the command printed."
            if origin != f"http://{host}" and (origin is not None or scope["method"] != "GET"):
                return "Another page asked; open the address that the command printed."
            given = headers.get("authorization", "").removeprefix("Bearer ") or Request(scope).query_params.get(
                "token", ""
            )
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                return "The token is missing or wrong; open the whole address that the command printed."
            return None
        return "The Host header is broken; open the address that the command printed."


def _refusal(problem: str, scope: Scope) -> Response:
    """A sentence for a person who opened the page, JSON for a script."""
    if "text/html" in Headers(scope=scope).get("accept", ""):
        return PlainTextResponse(problem, status_code=403)
    return JSONResponse({"error": problem}, status_code=403)
