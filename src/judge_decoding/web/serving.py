"""What every local page needs: a socket on this machine, a server until Ctrl-C, request bodies and pages."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn
from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.web.connections import DeadlineProtocol
from judge_decoding.web.guard import HOST


class TooLongError(JudgeDecodingError):
    """A request's body is longer than allowed."""


async def body_of(request: Request, most: int, what: str) -> bytes:
    """Return the body of a request; ``what`` names it in the error.

    Raises:
        TooLongError: it has more than ``most`` bytes.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise TooLongError(f"{what} is too long; reload the page.")
    return body


def html(templates: Environment, name: str, **values: object) -> Response:
    """Render a page whose content security policy allows its own script and style, and requests to this server."""
    nonce = secrets.token_urlsafe(16)
    return HTMLResponse(
        templates.get_template(name).render(nonce=nonce, **values),
        headers={
            "Content-Security-Policy": f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        },
    )


def listen(port: int) -> socket.socket:
    """Open a socket on this machine only; port 0 means any free port."""
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


class _Server(uvicorn.Server):
    """A server that says at once when it is asked to end, so that long answers can be broken off."""

    def __init__(self, config: uvicorn.Config, ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ending = ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle Ctrl-C."""
        self._ending()
        super().handle_exit(sig, frame)


def serve_app(app: ASGIApp, listener: socket.socket, ending: Callable[[], None] = lambda: None) -> None:
    """Serve until Ctrl-C; ``ending`` is called when it comes, in the thread of the server."""
    config = uvicorn.Config(
        app,
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
        _Server(config, ending).run(sockets=[listener])
