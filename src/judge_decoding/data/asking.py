"""Turn plain-text questions of cases into prompts for a target: a chat, or a plain form."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from judge_decoding.data.cases import Case
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.models.chat import is_rendered, render


def ask_cases(cases: Sequence[Case], tokenizer: PreTrainedTokenizerBase, *, chat: bool | None = None) -> list[Case]:
    """Replace plain questions in cases by whole prompts.

    A question already rendered by the chat template stays unchanged, and so does a case with its own token ids.

    Args:
        cases: labelled answers to questions in plain text.
        tokenizer: the target's.
        chat: whether to render the question as the user's message in the target's chat template; else it is written as
            ``Question: ...``, ``Answer:``, as in tasks without a chat. None: use the template if there is one.

    Raises:
        JudgeDecodingError: a chat is requested and there is no chat template, or it rejects the question.
    """
    if chat is None:
        chat = bool(tokenizer.chat_template)
    elif chat and not tokenizer.chat_template:
        raise JudgeDecodingError("This model has no chat template; leave --chat out.")
    asked = []
    for case in cases:
        if case.token_ids is not None or is_rendered(case.question, tokenizer):
            asked.append(case)
        elif chat:
            question = render([{"role": "user", "content": case.question}], tokenizer)
            asked.append(case.model_copy(update={"question": question}))
        else:
            asked.append(_plain(case))
    return asked


def _plain(case: Case) -> Case:
    """Put a space before the answer, to separate it from the prompt, and shift its spans."""
    moved = {
        name: None if spans is None else tuple((start + 1, end + 1) for start, end in spans)
        for name, spans in (("errors", case.errors), ("judged", case.judged))
    }
    question, answer = f"Question: {case.question}\nAnswer:", f" {case.answer}"
    return case.model_copy(update={"question": question, "answer": answer, **moved})
