"""The annotation page over HTTP, for one person on this machine: 127.0.0.1, a token, and the page's own origin only."""

from __future__ import annotations

import os
import secrets
import socket
import stat
import sys
from pathlib import Path

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import cannot_write, first_problem
from judge_decoding.labelling.annotate.session import Decision, Session, StaleError
from judge_decoding.labelling.annotate.storage import token_path
from judge_decoding.pages import templates
from judge_decoding.web.guard import LocalOnlyMiddleware
from judge_decoding.web.serving import TooLongError, body_of, html, serve_app

_MAX_BODY = 10_000

_TEMPLATES = templates("judge_decoding.labelling.annotate")


def make_app(session: Session, token: str) -> ASGIApp:
    """The application: the page, its requests, and the page on agreement."""

    def page(_: Request) -> Response:
        return html(_TEMPLATES, "annotate.html", token=token, annotator=session.annotator)

    async def state(_: Request) -> Response:
        # Not in a thread, like a decision, because it may write what could not be written before.
        return JSONResponse(session.state())

    async def decide(request: Request) -> Response:
        try:
            body = await body_of(request, _MAX_BODY, "The decision")
            # One decision at a time, because nothing is awaited between reading and writing the log.
            session.decide(Decision.model_validate_json(body))
        except TooLongError as error:
            return JSONResponse({"error": str(error)}, status_code=413)
        except ValidationError as error:
            sentence = f"This is not a decision: {first_problem(error)}; reload the page."
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
        return html(_TEMPLATES, "agreement.html", token=token, **found)

    routes = [
        Route("/", page),
        Route("/state", state),
        Route("/decide", decide, methods=["POST"]),
        Route("/agreement", agreement),
    ]
    return LocalOnlyMiddleware(Starlette(routes=routes), token)


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
        raise cannot_write(path, error) from error
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


def serve(session: Session, listener: socket.socket, token: str) -> None:
    """Serve until Ctrl-C."""
    serve_app(make_app(session, token), listener)
