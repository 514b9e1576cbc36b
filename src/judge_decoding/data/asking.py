"""Cases whose questions are plain text, put to a target as it is asked: in a chat or in a plain form."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from judge_decoding.data.cases import Case
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.models.chat import is_rendered, render


def ask_cases(cases: Sequence[Case], tokenizer: PreTrainedTokenizerBase, *, chat: bool | None = None) -> list[Case]:
    """Cases with whole prompts in place of plain questions.

    A question that the chat template has rendered already stays as it is, and so does a case with its own token ids.

    Args:
        cases: labelled answers to questions in plain text.
        tokenizer: the target's.
        chat: whether the question becomes the user's message in the target's chat template; else it is written as
            ``Question: ...``, ``Answer:``, as in tasks without a chat. None: where there is a template.

    Raises:
        JudgeDecodingError: a chat is asked for and there is no chat template, or it does not take the question.
    """
    if chat is None:
        chat = bool(tokenizer.chat_template)
    elif chat and not tokenizer.chat_template:
        raise JudgeDecodingError("This model has no chat template; leave --chat out.")
    return [
        case if case.token_ids is not None or is_rendered(case.question, tokenizer)
        else _in_chat(case, tokenizer) if chat else _plain(case)
        for case in cases
    ]  # fmt: skip


def _in_chat(case: Case, tokenizer: PreTrainedTokenizerBase) -> Case:
    question = render([{"role": "user", "content": case.question}], tokenizer)
    return case.model_copy(update={"question": question})


def _plain(case: Case) -> Case:
    """The answer gets a space in front, so that it does not stick to the prompt; its spans move with it."""
    moved = {
        name: None if spans is None else tuple((start + 1, end + 1) for start, end in spans)
        for name, spans in (("errors", case.errors), ("judged", case.judged))
    }
    question, answer = f"Question: {case.question}\nAnswer:", f" {case.answer}"
    return case.model_copy(update={"question": question, "answer": answer, **moved})
