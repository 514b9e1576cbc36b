"""Given questions and answers as drafts, in the tokens that the target reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from judge_decoding.data.cases import Case
from judge_decoding.data.tokens import check_spelling, read_tokens
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import first_problem, lines, parse_json
from judge_decoding.io.inputs import DOCUMENT
from judge_decoding.models.chat import render

_AS_IN_CASES = ("ended", "token_ids", "tokenizer")


@dataclass(frozen=True, slots=True)
class TokenizedAnswer:
    """An answer in the target's tokens.

    Attributes:
        prompt_ids: the prompt's tokens, at least one.
        ids: the answer's tokens, at least one; the end token is the last if the answer ended by itself.
        prompt: the prompt as text.
    """

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    prompt: str = ""

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise JudgeDecodingError("The prompt is empty; give at least one token.")
        if not self.ids:
            raise JudgeDecodingError("The answer is empty; there is nothing to accept.")


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    r"""How a question becomes the prompt that the target reads.

    Attributes:
        template: a text with ``{question}`` in it, such as ``Q: {question}\nA:``. Where the answer does not follow it
            directly, it ends with ``{answer}``; spaces before that belong to the answer. None: the question unchanged.
        chat: whether the result is a user message, rendered with the model's chat template.

    Raises:
        JudgeDecodingError: a template has no ``{question}``, or has text after ``{answer}``.
    """

    template: str | None = None
    chat: bool = False

    def __post_init__(self) -> None:
        if self.template is None:
            return
        if "{question}" not in self.template:
            raise JudgeDecodingError(
                f"The template {self.template!r} has no {{question}}; say where the question goes."
            )
        if "{answer}" in self.template and (self.chat or not self.template.endswith("{answer}")):
            raise JudgeDecodingError(
                f"The template {self.template!r} has {{answer}} in the wrong place; it can only be its end, and not of "
                "a chat."
            )

    def __str__(self) -> str:
        parts = [*(["chat"] if self.chat else []), *([repr(self.template)] if self.template is not None else [])]
        return ", ".join(parts) or "as in the file"

    def apply(self, case: Case, tokenizer: PreTrainedTokenizerBase) -> Case:
        """Return the case with its question in this form; token ids of another form are dropped.

        Raises:
            JudgeDecodingError: the model has no chat template, or its template rejects a single user message.
        """
        if self.template is None and not self.chat:
            return case
        question, answer = case.question, case.answer
        if self.template is not None:
            before, _, after = self.template.partition("{question}")
            if after.endswith("{answer}"):
                after = after.removesuffix("{answer}")
                answer = " " * (len(after) - len(after.rstrip(" "))) + answer
                after = after.rstrip(" ")
            question = before + question + after
        if self.chat:
            question = render([{"role": "user", "content": question}], tokenizer)
        return Case(question=question, answer=answer, ended=case.ended)


def read_answers(
    path: Path, prompt_field: str | None, answer_field: str, on_bad: Callable[[str], None]
) -> Iterator[tuple[int, Case]]:
    """Yield the answers of a JSONL file with their line numbers; report lines without an answer to ``on_bad``.

    Without a ``prompt_field`` it is ``question``, or ``prompt`` where there is no such field. From a TokenCourt file,
    the token ids and whether an answer ended by itself are read, too.

    Raises:
        JudgeDecodingError: the file cannot be read.
    """
    for number, line in lines(path, "the answers", on_bad, longest=DOCUMENT):
        try:
            row = parse_json(line)
        except ValueError:
            on_bad(f"{path}, line {number} is not JSON; correct or remove the line.")
            continue
        prompts = isinstance(row, dict) and "prompt" in row and "question" not in row
        field = prompt_field or ("prompt" if prompts else "question")
        problem = _problem(row, field, answer_field)
        if problem:
            on_bad(f"{path}, line {number} {problem}")
            continue
        known = {name: row[name] for name in _AS_IN_CASES if name in row}
        try:
            case = Case.model_validate({"question": row[field], "answer": row[answer_field], **known})
        except ValidationError as error:
            on_bad(f"{path}, line {number} is not an answer: {first_problem(error)}; correct or remove the line.")
            continue
        yield number, case


def _problem(row: Any, *fields: str) -> str | None:  # noqa: ANN401  (any JSON value)
    """Return what is wrong with a line, as the end of a sentence; None if nothing is."""
    if not isinstance(row, dict):
        return "is not a JSON object; correct or remove the line."
    for field in fields:
        if field not in row:
            there = ", ".join(list(row)[:8]) or "none"
            return f"has no field {field!r}, only {there}; name the fields with --prompt-field and --answer-field."
        if not isinstance(row[field], str):
            return f"has no text in the field {field!r}; correct or remove the line."
    return None


def tokenized(
    case: Case,
    tokenizer: PreTrainedTokenizerBase,
    form: PromptTemplate,
    *,
    size: int,
    context: int | None,
    ends: Sequence[int] | None = None,
) -> TokenizedAnswer:
    """Return the case in the target's tokens; ``size`` is its vocabulary's, and ``context`` None if there is no limit.

    Raises:
        JudgeDecodingError: the prompt or answer is empty, does not survive the tokenizer, or does not fit into the
        context.
    """
    if not case.answer.strip():
        raise JudgeDecodingError("The answer is empty; there is nothing to accept.")
    shown = form.apply(case, tokenizer)
    tokens = read_tokens(shown, tokenizer, ends)
    text, both = TokenizedAnswer(tokens.prompt, tokens.answer, case.question.strip()), [*tokens.prompt, *tokens.answer]
    if shown.token_ids is None:
        check_spelling(shown, tokens, tokenizer)
    if context is not None and len(both) > context:
        raise JudgeDecodingError(
            f"The answer has {len(both)} tokens with its prompt and the target's context is {context}; shorten it."
        )
    if max(both) >= size:
        raise JudgeDecodingError(
            f"The answer has token id {max(both)}, but the target's ids are 0 to {size - 1}; use its own tokenizer."
        )
    return text
