"""A model at an OpenAI-compatible endpoint, with concurrent requests.

The client ``openai`` reads address and key from OPENAI_BASE_URL and OPENAI_API_KEY. It retries after 429, 5xx and lost
connections, and waits as long as ``Retry-After`` requires (up to two minutes).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from judge_decoding.bounds import check_bound
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.visible import one_line

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

T = TypeVar("T")

Body = dict[str, Any]
"""Request parameters except the model: those of a chat with ``messages``, or of a completion with ``prompt``."""

PREFIX = "openai:"
"""The prefix of an endpoint's model names, which distinguishes them from local models."""

_MOST_TROUBLE = 5
_MALFORMED_TRIES = 3

# Parameters that some servers do not know: the replacement if a server rejects one, or None to omit it.
_NOT_KNOWN = ("support", "unrecognized", "unknown", "unexpected", "not permitted", "not allowed", "extra")
_INSTEAD = {"max_tokens": "max_completion_tokens", "response_format": None, "seed": None}


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answer; ``ended`` by itself, not by the token limit; ``token_ids`` if they were requested."""

    text: str
    ended: bool
    token_ids: tuple[int, ...] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    finish_reason: str | None = None
    message: _Message | None = None
    text: str | None = None
    token_ids: tuple[int, ...] | None = None


class _Answer(BaseModel):
    choices: list[_Choice]


class _FailedError(Exception):
    """One request failed; ``trouble`` means that it is the server's fault."""

    def __init__(self, reason: str, *, trouble: bool = False) -> None:
        super().__init__(reason)
        self.trouble = trouble


class Endpoint:
    """One model at an endpoint, and the endpoint's address, without secrets.

    Up to ``concurrency`` requests are sent at a time; each may take ``timeout`` seconds, and the client retries it.
    """

    def __init__(self, model: str, *, concurrency: int = 8, retries: int = 6, timeout: float = 600.0) -> None:
        if find_spec("openai") is None:
            raise JudgeDecodingError(
                "Endpoints need the client openai; install it with: pip install 'judge-decoding[court]'."
            )
        if not model:
            raise JudgeDecodingError(f"The endpoint's model has no name; give one as in {PREFIX}NAME.")
        for name, value in (("concurrency", concurrency), ("retries", retries), ("timeout", timeout)):
            check_bound(name, value)
        self.model = model
        self._concurrency, self._retries, self._timeout = concurrency, retries, timeout
        self._instead: dict[str, str | None] = {}
        self._reached = False
        self._in_row = 0  # consecutive requests that failed through the server's fault
        self._client()

    def request_all(
        self, requests: Iterable[tuple[T, Body]], done: Callable[[T, Reply], None], failed: Callable[[T, str], None]
    ) -> None:
        """Send all requests, up to the allowed concurrency, and report each as it ends.

        Args:
            requests: requests, each with an object that is passed to the callbacks.
            done: called with each answer.
            failed: called with the reason if a request is refused or fails; the others continue.

        Raises:
            JudgeDecodingError: the endpoint cannot be reached, refuses the key or the model, blocks further requests,
                or fails repeatedly; pending requests are cancelled.
        """
        try:
            _run(self._request_all(requests, done, failed))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _request_all(
        self, requests: Iterable[tuple[T, Body]], done: Callable[[T, Reply], None], failed: Callable[[T, str], None]
    ) -> None:
        waiting = iter(requests)

        async def work(client: AsyncOpenAI) -> None:
            for what, body in waiting:
                try:
                    reply = await self._ask(client, body)
                except _FailedError as error:
                    self._in_row = self._in_row + 1 if error.trouble else 0
                    if self._in_row > _MOST_TROUBLE:
                        raise JudgeDecodingError(
                            f"{self._in_row} requests in a row failed at {self.address}, the last one because "
                            f"{error}; finished work is kept: check the server, and run the same command again."
                        ) from error
                    failed(what, str(error))
                else:
                    self._in_row = 0
                    done(what, reply)

        async with self._client() as client, asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(work(client))

    async def _ask(self, client: AsyncOpenAI, body: Body) -> Reply:
        for _ in range(_MALFORMED_TRIES):
            text = await self._send(client, body)
            try:
                choice = _Answer.model_validate_json(text).choices[0]
            except (ValidationError, IndexError):
                continue
            content = choice.text if choice.message is None else choice.message.content
            if choice.finish_reason == "content_filter":
                raise _FailedError("the endpoint's content filter blocked the answer")
            silent = content is None or (not content.strip() and choice.finish_reason == "length")
            if content is None or (silent and choice.token_ids is None):
                raise _FailedError("the answer has no text; allow it more tokens if the model thinks before it speaks")
            return Reply(content, choice.finish_reason != "length", choice.token_ids)
        raise _FailedError("the answer is not a chat completion; check OPENAI_BASE_URL", trouble=True)

    async def _send(self, client: AsyncOpenAI, body: Body) -> str:
        """Send a request; `_FailedError` means that only this one failed, `JudgeDecodingError` that all would."""
        import openai  # noqa: PLC0415  (an extra)

        while True:
            names = {name: self._instead.get(name, name) for name in body}
            given = {known: body[name] for name, known in names.items() if known is not None}
            # Report a wrong address early.
            tries = self._retries if self._reached else min(self._retries, 2)
            one = client.with_options(max_retries=tries)
            create = one.completions.with_raw_response if "prompt" in body else one.chat.completions.with_raw_response
            try:
                response = await create.create(model=self.model, **given)
                self._reached = True
                return str(response.http_response.text)
            except openai.APITimeoutError as error:
                raise _FailedError(f"there was no answer in {self._timeout:g} seconds", trouble=True) from error
            except openai.APIConnectionError as error:
                if self._reached:
                    raise _FailedError("the connection was lost", trouble=True) from error
                raise JudgeDecodingError(
                    f"Cannot reach the endpoint {self.address}; check OPENAI_BASE_URL, and that the server runs."
                ) from error
            except openai.APIStatusError as error:
                first, self._reached = not self._reached, True
                if first and tries < self._retries and (error.status_code == 429 or error.status_code >= 500):
                    continue
                if not self._avoid(error, body):
                    raise self._refusal(error) from error

    def _avoid(self, error: APIStatusError, body: Body) -> bool:
        """Whether the server rejected a parameter that can be replaced; if so, replace it from now on."""
        if error.status_code not in (400, 422):
            return False
        # The error for a request that is too long also contains the names of these parameters.
        if not any(word in error.message.lower() for word in _NOT_KNOWN):
            return False
        name = next((n for n in _INSTEAD if n in body and n in error.message and n not in self._instead), None)
        if name is None or ("prompt" in body and _INSTEAD[name] is not None):  # completions use the old names
            return False
        self._instead[name] = _INSTEAD[name]
        return True

    def _refusal(self, error: APIStatusError) -> Exception:
        status, message = error.status_code, self._error_message(error)
        if status == 401:  # the server's message may contain a part of the key
            return JudgeDecodingError(
                f"{self.address} refuses the key (401); set OPENAI_API_KEY to one that is good there."
            )
        if status == 403:
            return JudgeDecodingError(
                f"{self.address} does not allow the model {self.model} (403{message}); ask for access."
            )
        if status == 404:
            return JudgeDecodingError(
                f"{self.address} has no model {self.model}, or is no such address (404{message}); check the name and "
                "OPENAI_BASE_URL, which mostly ends in /v1."
            )
        if status == 429:
            return JudgeDecodingError(
                f"{self.address} lets no more requests through (429{message}); what is done is kept: run the same "
                "command later, or with a smaller --concurrency."
            )
        return _FailedError(f"the endpoint refused it ({status}{message})", trouble=status >= 500)

    def _error_message(self, error: APIStatusError) -> str:
        message = error.body.get("message") if isinstance(error.body, dict) else None
        text = one_line(str(message or ""))
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return f": {text[:200].rstrip('.')}" if text else ""

    def _client(self) -> AsyncOpenAI:
        import openai  # noqa: PLC0415  (an extra)

        try:
            client = openai.AsyncOpenAI(timeout=self._timeout)
            parts = urlsplit(str(client.base_url))
            port = parts.port
        except openai.OpenAIError as error:
            raise JudgeDecodingError(
                "There is no key for the endpoint; set OPENAI_API_KEY (to any word for a server without keys) and, for "
                "another endpoint than OpenAI's, OPENAI_BASE_URL."
            ) from error
        except Exception as error:  # from the HTTP library; the address may contain a password, so it is not shown
            raise JudgeDecodingError(
                "OPENAI_BASE_URL is not a web address; give one such as http://localhost:8000/v1."
            ) from error
        if not (client.api_key.isascii() and client.api_key.isprintable()):
            raise JudgeDecodingError("The key in OPENAI_API_KEY has characters that no key can have; copy it again.")
        self.address = f"{parts.scheme}://{parts.hostname}{f':{port}' if port else ''}{parts.path}".rstrip("/")
        self._secrets = [secret for secret in (client.api_key, parts.password) if secret]
        return client


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run asynchronous work, in a new thread if a loop is already running, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()
