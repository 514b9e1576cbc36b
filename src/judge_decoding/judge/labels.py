"""From a case to token ids and the verdict of each: how the labels of an answer are read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from judge_decoding.court.cases import Case
from judge_decoding.court.spans import Span, touches
from judge_decoding.court.tokens import check_tokens
from judge_decoding.decoding.text import pieces

Labels = Literal["error", "span", "from_error"]
"""Which tokens are wrong: the first one of the first error, all that touch an error, or all from the first error on."""

AfterError = Literal["correct", "ignore"]
"""What the other tokens behind the first error count as, unless all of them are wrong."""

IGNORED = -1


@dataclass(frozen=True, slots=True)
class Example:
    """A case in tokens.

    Attributes:
        ids: question and answer.
        labels: 1 (correct), 0 (wrong) or -1 (not used) for every token.
        judged: positions of the tokens that have a verdict under one reading or another.
        numbers: whether every token is a number.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    judged: tuple[int, ...]
    numbers: tuple[bool, ...]


def encode(
    case: Case, tokenizer: PreTrainedTokenizerBase, labels: Labels = "span", after_error: AfterError = "ignore"
) -> Example:
    """A case in tokens, their labels read as ``labels`` and ``after_error`` say.

    The question's tokens are unused and, where a case says which parts are judged, those that touch none of them. A
    token touches an error by its space, too.

    Raises:
        JudgeDecodingError: the case's own token ids are not of this tokenizer.
    """
    ids, spans = _own_tokens(case, tokenizer) if case.token_ids is not None else _tokens(case, tokenizer)
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
    numbers = tuple(span is not None and _is_number(text[max(span[0], 0) : span[1]]) for span in spans)
    return Example(tuple(ids), tuple(verdicts), judged, numbers)


def question_examples(
    cases: Sequence[Case], examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
) -> list[Example]:
    """The questions of cases, each once, as prompts of which the last token counts.

    ``examples`` are the cases in tokens. A question whose last token runs into the answer is left out: as a prompt it
    would end in another token.
    """
    found: dict[str, Example] = {}
    for case, example in zip(cases, examples, strict=True):
        if case.question in found or not case.question.strip():
            continue
        begun = bool(tokenizer.bos_token) and case.question.startswith(tokenizer.bos_token)
        prompt = tuple(tokenizer(case.question, add_special_tokens=not begun)["input_ids"])
        if prompt and example.ids[: len(prompt)] == prompt:
            size = len(prompt)
            found[case.question] = Example(prompt, (IGNORED,) * size, (size - 1,), (False,) * size)
    return list(found.values())


def _tokens(case: Case, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[Span | None]]:
    """Token ids of question and answer and where in the answer each is; None for the question's."""
    text = case.question + case.answer
    # A rendered chat has its begin token already, and is read as in decoding: with that one only.
    begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    encoding = tokenizer(text, return_offsets_mapping=True, add_special_tokens=not begun)
    ids, start = list(encoding["input_ids"]), len(case.question)
    spans: list[Span | None] = [
        # of the question, or a special token without text
        None if end <= start or begin == end else (begin - start, end - start)
        for begin, end in encoding["offset_mapping"]
    ]
    if case.ended and tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
        spans.append((len(case.answer), len(case.answer) + 1))
    return ids, spans


def _own_tokens(case: Case, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[Span | None]]:
    """The same of a case that has its tokens; the answer is what its last tokens spell."""
    check_tokens(case, tokenizer)
    assert case.token_ids is not None
    texts = pieces(tokenizer, case.token_ids)
    begin = len(case.answer) - len("".join(texts))
    spans: list[Span | None] = []
    for text in texts:
        end = begin + len(text)
        spans.append(None if end <= 0 or begin == end else (begin, end))
        begin = end
    if case.ended and case.token_ids[-1:] == (tokenizer.eos_token_id,):
        spans[-1] = (begin, begin + 1)
    return list(case.token_ids), spans


def _is_number(text: str) -> bool:
    return any(c.isdigit() for c in text) and not any(c.isalpha() for c in text)


def data_hash(cases: Sequence[Case]) -> str:
    """Hash of what a head learns from: questions, answers, error spans, and what else tells the labels."""
    digest = hashlib.sha256()
    for case in cases:
        digest.update(repr((case.question, case.answer, case.ended, case.errors)).encode())
        if case.judged is not None or case.token_ids is not None:
            digest.update(repr((case.judged, case.token_ids)).encode())
    return digest.hexdigest()
