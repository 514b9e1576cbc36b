"""The annotation page over HTTP, for one person on this machine: 127.0.0.1, a token, and the page's own origin only."""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import stat
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import first_problem
from judge_decoding.labelling.annotate.connections import DeadlineProtocol
from judge_decoding.labelling.annotate.session import Decision, Session, StaleError
from judge_decoding.labelling.annotate.storage import token_path
from judge_decoding.pages import templates

HOST = "127.0.0.1"
_LOCAL = frozenset({HOST, "localhost", "::1"})
_MAX_BODY = 10_000

_TEMPLATES = templates("judge_decoding.labelling.annotate")


class LocalOnlyMiddleware:
    """Allow the requests of the annotator's own page, and reject all others.

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
            await PlainTextResponse(problem, status_code=403)(scope, receive, send)
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


def make_app(session: Session, token: str) -> ASGIApp:
    """The application: the page, its requests, and the page on agreement."""

    def page(_: Request) -> Response:
        return _html("annotate.html", token=token, annotator=session.annotator)

    async def state(_: Request) -> Response:
        # Not in a thread, like a decision, because it may write what could not be written before.
        return JSONResponse(session.state())

    async def decide(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY:
                return JSONResponse({"error": "The decision is too long; load the page again."}, status_code=413)
        try:
            # One decision at a time, because nothing is awaited between reading and writing the log.
            session.decide(Decision.model_validate_json(body))
        except ValidationError as error:
            sentence = f"This is not a decision: {first_problem(error)}; load the page again."
            return JSONResponse({"error": sentence}, status_code=400)
        except StaleError as error:
            return JSONResponse({"error": str(error), **session.state()}, status_code=409)
        except JudgeDecodingError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse(session.state())

    async def agreement(_: Request) -> Response:
        try:
            found = await run_in_threadpool(session.agreement)
        except JudgeDecodingError as error:
            return PlainTextResponse(str(error), status_code=500)
        return _html("agreement.html", token=token, **found)

    routes = [
        Route("/", page),
        Route("/state", state),
        Route("/decide", decide, methods=["POST"]),
        Route("/agreement", agreement),
    ]
    return LocalOnlyMiddleware(Starlette(routes=routes), token)


def _html(template: str, **values: object) -> Response:
    nonce = secrets.token_urlsafe(16)
    return HTMLResponse(
        _TEMPLATES.get_template(template).render(nonce=nonce, **values),
        headers={
            "Content-Security-Policy": f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        },
    )


def kept_token(folder: Path) -> str:
    """The token of a folder, created on first use, so that an open page still works after a restart.

    Raises:
        JudgeDecodingError: the token cannot be read or written.
    """
    path = token_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if token := _own_token(path):
            return token
        path.unlink(missing_ok=True)
        token = secrets.token_hex(16)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token + "\n")
    except OSError as error:
        raise JudgeDecodingError(f"Cannot write {path}: {error.strerror}; choose another place.") from error
    return token


def _own_token(path: Path) -> str:
    """The token in a file that only this user can write and read; empty if the file does not qualify."""
    try:
        # Do not follow a link that somebody else has made, and do not wait for the writer of a pipe.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with os.fdopen(os.open(path, flags)) as file:
            found = os.fstat(file.fileno())
            token = file.read(100).strip()
    except (OSError, UnicodeDecodeError):
        return ""
    own = sys.platform == "win32" or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
    return token if own and stat.S_ISREG(found.st_mode) and len(token) >= 32 and token.isalnum() else ""


def listen(port: int) -> socket.socket:
    """Open a socket on this machine only; port 0 means any free port.

    Raises:
        JudgeDecodingError: the port is in use or not allowed.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name != "nt":  # on Windows, two servers could then share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # from here on, a browser that is opened at once waits instead of failing
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else "ports go up to 65535"
        raise JudgeDecodingError(f"Cannot listen on port {port}: {reason}; give another --port.") from error
    return listener


def serve(session: Session, listener: socket.socket, token: str) -> None:
    """Serve until Ctrl-C."""
    config = uvicorn.Config(
        make_app(session, token),
        log_level="warning",
        access_log=False,  # addresses contain the token
        lifespan="off",
        ws="none",
        http=DeadlineProtocol,
        use_colors=False,  # standard error is shown as plain text
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
