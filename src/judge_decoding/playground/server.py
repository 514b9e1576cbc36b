"""The playground over HTTP, for one person on this machine; see `LocalOnlyMiddleware` for who is answered."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from threading import Event, Lock
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from judge_decoding.core.rounds import Round
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import first_problem
from judge_decoding.pages import templates
from judge_decoding.playground.answers import HeldAnswer
from judge_decoding.playground.asking import (
    AnswerPlan,
    MarkRequest,
    PlayRequest,
    StopRequest,
    WhatIfRequest,
    plan,
    replan,
)
from judge_decoding.playground.choices import choices
from judge_decoding.playground.decoding import DecodingLock, EventSink, answer
from judge_decoding.playground.jobs import JobRunner
from judge_decoding.playground.marks import CaseFile
from judge_decoding.playground.pairs import ModelPair
from judge_decoding.report.answers import answers_page
from judge_decoding.web.guard import LocalOnlyMiddleware
from judge_decoding.web.serving import TooLongError, body_of, html, serve_app

_MAX_BODY = 2_000_000
_MOST_ANSWERS = 200
"""The most answers held; the oldest go first."""
_TEMPLATES = templates("judge_decoding.playground")

RequestT = TypeVar("RequestT", bound=BaseModel)
_EarlierRounds = tuple[tuple[Round, ...], tuple[str, ...]]


class Playground:
    """What the page talks to.

    Attributes:
        pairs: the models by name; the first is chosen when the page opens.
        cases: the file to which marked answers go; None if they cannot be saved.
        annotator: who marks them.
        jobs: the answers that are being decoded.
    """

    def __init__(self, pairs: Mapping[str, ModelPair], cases: CaseFile | None, annotator: str = "") -> None:
        self.pairs, self.cases, self.annotator = dict(pairs), cases, annotator
        self.jobs = JobRunner()
        self._answers: dict[str, HeldAnswer] = {}
        self._lock, self._turns = Lock(), DecodingLock()

    def app(self, token: str) -> ASGIApp:
        """The application."""
        routes = [
            Route("/", partial(self._page, token)),
            Route("/answer", self._ask, methods=["POST"]),
            Route("/what-if", self._what_if, methods=["POST"]),
            Route("/stop", self._stop, methods=["POST"]),
            Route("/mark", self._mark, methods=["POST"]),
            Route("/answers/{id}.{kind}", self._download),
        ]
        refusals: Any = {HTTPException: _as_json, JudgeDecodingError: _refused}
        return LocalOnlyMiddleware(Starlette(routes=routes, exception_handlers=refusals), token)

    def serve(self, listener: socket.socket, token: str) -> None:
        """Serve until Ctrl-C."""
        serve_app(self.app(token), listener, self.jobs.close)
        self.jobs.close()
        self.jobs.join()

    def _page(self, token: str, _: Request) -> Response:
        file = None if self.cases is None else str(self.cases.path)
        return html(_TEMPLATES, "play.html", token=token, data=choices(self.pairs, file))

    async def _ask(self, request: Request) -> Response:
        question = await _asked(request, PlayRequest, "The question")
        planned = await run_in_threadpool(plan, question, self.pairs)
        return self._answering(planned, ((), ()))

    async def _what_if(self, request: Request) -> Response:
        asked = await _asked(request, WhatIfRequest, "The question")
        held = self._held(asked.answer)
        before = held.before(asked.token)
        planned = await run_in_threadpool(replan, held.plan, asked.settings, self.pairs)
        return self._answering(planned, before)

    async def _stop(self, request: Request) -> Response:
        self.jobs.stop((await _asked(request, StopRequest, "The request")).answer)
        return JSONResponse({})

    async def _mark(self, request: Request) -> Response:
        mark = await _asked(request, MarkRequest, "The verdict")
        held = self._held(mark.answer)
        if self.cases is None:
            raise JudgeDecodingError("There is no file for marked answers; start the playground with --cases FILE.")
        if mark.verdict == "none":
            await run_in_threadpool(self.cases.drop, held.id)
            return JSONResponse({"saved": None, "count": self.cases.count})
        first = mark.first if mark.verdict == "wrong" else None
        case = held.case(first, mark.last, self.annotator, mark.seconds)
        await run_in_threadpool(self.cases.put, held.id, case)
        return JSONResponse({"saved": mark.verdict, "errors": case.errors, "count": self.cases.count})

    async def _download(self, request: Request) -> Response:
        held, kind = self._held(request.path_params["id"]), request.path_params["kind"]
        if kind == "json":
            text = await run_in_threadpool(lambda: held.sample().model_dump_json(exclude_none=True) + "\n")
        elif kind == "html":
            text = await run_in_threadpool(lambda: answers_page("Judge decoding, token by token", [held.sample()]))
        else:
            raise HTTPException(404)
        # Never shown by this server: the page that is downloaded has a policy of its own.
        return Response(
            text,
            media_type="application/json" if kind == "json" else "text/html",
            headers={"Content-Disposition": f'attachment; filename="answer-{held.id[:8]}.{kind}"'},
        )

    def _held(self, name: str) -> HeldAnswer:
        found = self._answers.get(name)
        if found is None:
            raise HTTPException(404, "This answer is no longer kept here; ask again.")
        return found

    def _answering(self, planned: AnswerPlan, before: _EarlierRounds) -> Response:
        name = secrets.token_hex(12)

        def work(send: EventSink, stop: Event) -> None:
            send({"type": "id", "id": name, "rule": str(planned.rule), "seed": planned.settings.seed})
            found = answer(planned, send, stop, self._turns, before)
            if found is None:
                send({"type": "nothing"})
                return
            found = replace(found, id=name)
            with self._lock:
                self._answers[name] = found
                if len(self._answers) > _MOST_ANSWERS:
                    del self._answers[next(iter(self._answers))]
            sample = found.sample().model_dump(mode="json", exclude={"stats"})
            send({"type": "answer", "sample": sample})

        return StreamingResponse(self.jobs.lines(name, work), media_type="application/x-ndjson")


async def _asked(request: Request, kind: type[RequestT], what: str) -> RequestT:
    """Read a request's body."""
    try:
        return kind.model_validate_json(await body_of(request, _MAX_BODY, what))
    except TooLongError as error:
        raise HTTPException(413, str(error)) from error
    except ValidationError as error:
        raise HTTPException(400, f"{what} cannot be read: {first_problem(error)}; reload the page.") from error


def _as_json(_: Request, error: HTTPException) -> Response:
    said = error.detail if error.detail.endswith(".") else f"{error.detail}: this server has no such page."
    return JSONResponse({"error": said}, status_code=error.status_code, headers=error.headers)


def _refused(_: Request, error: JudgeDecodingError) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)
