"""Answers of a model at an endpoint, and helpers for all writers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from judge_decoding.io.endpoint import Body, Endpoint, Reply
from judge_decoding.labelling.collect import Answer, Answering, AnswerRequest


@dataclass(frozen=True, slots=True)
class EndpointWriter:
    """A model at an endpoint; ``raw`` sends the prompt as it is (completions) instead of the question in a chat."""

    name: str
    endpoint: Endpoint
    answering: Answering
    raw: bool = False

    def write(
        self,
        wants: Sequence[AnswerRequest],
        done: Callable[[AnswerRequest, Answer], None],
        failed: Callable[[AnswerRequest, str], None],
    ) -> None:
        """Answer ``wants``, several in parallel."""

        def take(want: AnswerRequest, reply: Reply) -> None:
            done(want, Answer(reply.text if self.raw else behind(want.question.prompt, reply.text), reply.ended))

        self.endpoint.request_all(((want, self._body(want)) for want in wants), take, failed)

    def _body(self, want: AnswerRequest) -> Body:
        how = self.answering
        body: Body = {"max_tokens": how.max_new_tokens, "temperature": how.temperature}
        if how.top_p < 1:
            body["top_p"] = how.top_p
        if how.stop:
            body["stop"] = list(how.stop)
        if how.seed is not None:
            body["seed"] = seed_of(want, how.seed) % 2**31
        if self.raw:
            return body | {"prompt": want.question.prompt}
        return body | {"messages": how.messages(want.question.text)}


def seed_of(want: AnswerRequest, seed: int) -> int:
    """The seed of one answer: it depends on its question and sample alone, not on the other requests."""
    digest = hashlib.sha256(f"{seed} {want.sample} {want.question.prompt}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def behind(prompt: str, text: str) -> str:
    """A chat's answer, which starts a new text, in the form the target reads it: right after the prompt."""
    return f" {text}" if prompt[-1:].strip() and text[:1].strip() else text


def without_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    return text[: min((text.find(string) for string in stop if string in text), default=len(text))]
