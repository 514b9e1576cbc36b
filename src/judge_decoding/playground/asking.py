"""What the page may ask for, checked before anything is decoded."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from judge_decoding.bounds import check_bound
from judge_decoding.core.rounds import FinishReason
from judge_decoding.decoding.answer import Options
from judge_decoding.decoding.choices import choose_rule, remaining_context
from judge_decoding.decoding.engines import Backend
from judge_decoding.decoding.guards import Guard, parse_guards
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.models.chat import render
from judge_decoding.playground.pairs import ModelPair
from judge_decoding.rules.base import VerificationRule

MOST_TOKENS = 100_000
"""The largest token budget of an answer: the page shows it as a whole."""
MOST_TEXT = 400_000
"""The most characters of a prompt or of all messages of a chat."""

_Text = Annotated[str, Field(max_length=MOST_TEXT)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ChatMessage(_Strict):
    """A message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: _Text


class AnswerSettings(_Strict):
    """How the next answer is decoded.

    Attributes:
        pair: the name of the models.
        rule: the verification rule's spelling; empty is the judge's own, or exact without a judge.
        guards: spellings of guards.
        num_draft_tokens: the draft length; None is the pair's own.
        temperature: None is as the target's generation configuration says.
        seed: None is a new one for each answer.
        max_new_tokens: the token budget; None is the target's own.
        backend: "eager" or "static".
        with_target: whether the target alone answers first.
    """

    pair: str = Field(max_length=200)
    rule: str = Field(default="", max_length=2000)
    guards: tuple[Annotated[str, Field(max_length=2000)], ...] = Field(default=(), max_length=20)
    num_draft_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    max_new_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    backend: Backend = "eager"
    with_target: bool = True


class PlayRequest(_Strict):
    """A prompt, or the messages of a chat, and how to answer."""

    settings: AnswerSettings
    prompt: _Text | None = None
    messages: tuple[ChatMessage, ...] | None = Field(default=None, max_length=1000)


class WhatIfRequest(_Strict):
    """Continue from the target's own token in place of token ``token`` of an answer that is held here."""

    answer: str = Field(max_length=64)
    token: int = Field(ge=0)
    settings: AnswerSettings


class MarkRequest(_Strict):
    """A verdict on an answer: the tokens ``first`` to ``last`` are wrong, it is right, or the verdict is taken back.

    ``seconds`` is how long the person looked at it.
    """

    answer: str = Field(max_length=64)
    verdict: Literal["wrong", "right", "none"]
    first: int = Field(default=0, ge=0)
    last: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0, le=1e6)


class StopRequest(_Strict):
    """End an answer that is being decoded; what there is of it stays."""

    answer: str = Field(max_length=64)


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """A question that was checked.

    Attributes:
        pair: the models.
        settings: as asked for, with the seed that is used.
        question: the prompt as shown to people.
        text: the prompt as the target reads it.
        ids: its token ids [1, T].
        rule, guards: as asked for.
        budget: the token budget.
        limit: what bounds it, the settings ("length") or the target's context ("context").
    """

    pair: ModelPair
    settings: AnswerSettings
    question: str
    text: str
    ids: Tensor
    rule: VerificationRule
    guards: tuple[Guard, ...]
    budget: int
    limit: FinishReason

    @property
    def options(self) -> Options:
        """The options of both columns."""
        options = Options(seed=self.settings.seed)
        if self.settings.temperature is not None:
            options["temperature"] = self.settings.temperature
        return options

    @property
    def judged(self) -> Options:
        """The options of judge decoding."""
        return {
            **self.options, "rule": self.rule, "guards": self.guards, "details": True,
            "num_draft_tokens": self.settings.num_draft_tokens,
        }  # fmt: skip


def plan(question: PlayRequest, pairs: Mapping[str, ModelPair]) -> AnswerPlan:
    """Check a question.

    Raises:
        JudgeDecodingError: there are no such models, the prompt is empty, too long or refused by the chat template, or
            a setting is not allowed.
    """
    pair = _pair(question.settings, pairs)
    decoder = pair.decoder
    if (question.prompt is None) == (question.messages is None):
        raise JudgeDecodingError("The question has both or neither of a prompt and messages; give one of them.")
    if question.prompt is not None:
        text = shown = question.prompt
        ids = decoder.encode(text)
    else:
        messages = [turn.model_dump() for turn in question.messages or ()]
        if not messages or not messages[-1]["content"].strip():
            raise JudgeDecodingError("The message is empty; write one.")
        text = render(messages, decoder.tokenizer)
        shown = messages[-1]["content"] if len(messages) == 1 else text
        ids = decoder.encode(messages)
    return _plan(question.settings, pair, shown, text, ids)


def replan(old: AnswerPlan, settings: AnswerSettings, pairs: Mapping[str, ModelPair]) -> AnswerPlan:
    """Plan another answer to the same question, by the same models.

    Raises:
        JudgeDecodingError: the models are others, or a setting is not allowed.
    """
    if _pair(settings, pairs) is not old.pair:
        raise JudgeDecodingError(
            f"This answer was made by the models {old.pair.name}; select them again to continue it."
        )
    return _plan(settings, old.pair, old.question, old.text, old.ids)


def _pair(settings: AnswerSettings, pairs: Mapping[str, ModelPair]) -> ModelPair:
    if settings.pair not in pairs:
        raise JudgeDecodingError(f"There are no models {settings.pair[:40]} here; reload the page.")
    return pairs[settings.pair]


def _plan(settings: AnswerSettings, pair: ModelPair, question: str, text: str, ids: Tensor) -> AnswerPlan:
    decoder = pair.decoder
    for name in ("num_draft_tokens", "temperature", "seed"):
        check_bound(name, getattr(settings, name))
    if settings.seed is None:
        settings = settings.model_copy(update={"seed": secrets.randbelow(2**31)})
    rule = choose_rule(decoder.judge, settings.rule or None, None)
    guards = parse_guards(settings.guards)
    budget, most = (
        settings.max_new_tokens or decoder.max_new_tokens(ids.shape[1]),
        remaining_context(ids.shape[1], decoder.target),
    )
    limit: FinishReason = "context" if most < budget else "length"
    return AnswerPlan(pair, settings, question, text, ids, rule, guards, min(budget, most), limit)
