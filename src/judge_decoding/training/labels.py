"""Convert a case to token ids and the verdict of each token: how the labels of an answer are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from judge_decoding.core.spans import touches
from judge_decoding.data.cases import Case
from judge_decoding.data.tokens import read_tokens
from judge_decoding.models.tokenize import prompt_ids

Labels = Literal["error", "span", "from_error"]
"""The wrong tokens: the first one of the first error, all that touch an error, or all from the first error on."""

AfterError = Literal["correct", "ignore"]
"""How the other tokens after the first error count, unless all of them are wrong."""

IGNORED = -1


@dataclass(frozen=True, slots=True)
class Example:
    """A case in tokens.

    Attributes:
        ids: question and answer.
        labels: 1 (correct), 0 (wrong) or -1 (not used) for every token.
        judged: positions of the tokens that have a verdict under at least one reading of the labels.
        numbers: for every token, whether it is a number.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    judged: tuple[int, ...]
    numbers: tuple[bool, ...]


def encode(
    case: Case,
    tokenizer: PreTrainedTokenizerBase,
    labels: Labels = "span",
    after_error: AfterError = "ignore",
    ends: Sequence[int] | None = None,
) -> Example:
    """Convert a case to tokens, with labels according to ``labels`` and ``after_error``.

    ``ends`` are the tokens that end an answer of the target; by default the tokenizer's end token.

    The question's tokens are unused. If a case marks the judged parts, tokens outside them are unused too. The space
    before a token counts as part of it when it touches an error.

    Raises:
        JudgeDecodingError: the case has token ids of another tokenizer.
    """
    tokens = read_tokens(case, tokenizer, ends)
    ids, spans = (*tokens.prompt, *tokens.answer), [*[None] * len(tokens.prompt), *tokens.spans]
    judged = tuple(i for i, span in enumerate(spans) if span and (case.judged is None or touches(*span, case.judged)))
    verdicts = [IGNORED] * len(ids)
    errors = sorted(case.errors)
    first, found = errors[:1], False
    for i in judged:
        begin, end = spans[i] or (0, 0)
        after = bool(first) and begin > first[0][0]
        if labels == "span":
            wrong = touches(begin, end, errors)
        elif labels == "from_error":
            wrong = after or touches(begin, end, first)
        else:
            wrong = not found and touches(begin, end, first)
        found = found or wrong
        behind = 1 if after_error == "correct" else IGNORED
        verdicts[i] = 0 if wrong else behind if after or found else 1
    text = case.answer
    numbers = tuple(span is not None and _is_number(text[span[0] : span[1]]) for span in spans)
    return Example(ids, tuple(verdicts), judged, numbers)


def question_examples(questions: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Questions, without repeats, as prompts of which only the last token counts."""
    found: dict[str, Example] = {}
    for question in questions:
        if question in found or not question.strip():
            continue
        prompt = tuple(prompt_ids(question, tokenizer))
        size = len(prompt)
        found[question] = Example(prompt, (IGNORED,) * size, (size - 1,), (False,) * size)
    return list(found.values())


def _is_number(text: str) -> bool:
    return any(c.isdigit() for c in text) and not any(c.isalpha() for c in text)


def data_hash(cases: Sequence[Case]) -> str:
    """A hash of everything a head learns from: questions, answers, error spans, and all else that determines labels."""
    digest = hashlib.sha256()
    for case in cases:
        digest.update(repr((case.question, case.answer, case.ended, case.errors)).encode())
        if case.judged is not None or case.token_ids is not None:
            digest.update(repr((case.judged, case.token_ids)).encode())
    return digest.hexdigest()
