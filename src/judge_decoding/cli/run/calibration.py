"""Load the calibration task, by which a threshold is chosen, for ``train`` and ``fit``."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from judge_decoding.cli.checks import is_file
from judge_decoding.cli.run.models import uses_chat
from judge_decoding.cli.shared import warnings
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.thresholds import calibration_items
from judge_decoding.tasks import parse_task, read_items
from judge_decoding.tasks.base import Item
from judge_decoding.tasks.prompt_format import PromptFormat
from judge_decoding.tasks.prompts import Prompts


def calibration(
    spelling: str,
    data: Path | None,
    limit: int | None,
    *,
    checker: str,
    max_new_tokens: int | None,
    chat: bool | None,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[PromptFormat, list[Item]]:
    """What is asked to choose a threshold, and how; ``chat`` is None for "if there is a chat template".

    Raises:
        JudgeDecodingError: there is no such task, or it cannot be read or checked.
    """
    if is_file(spelling):

        def refuse(sentence: str) -> None:
            raise JudgeDecodingError(sentence)

        task = Prompts(checker)
        items = read_items(task, Path(spelling), limit=limit, on_bad=refuse)
        return PromptFormat(task, max_new_tokens=max_new_tokens), calibration_items(task, items)
    named = parse_task(spelling)
    with warnings() as on_bad:
        items = read_items(named, data, limit=limit, on_bad=on_bad)
    good = calibration_items(named, items)
    return PromptFormat(named, uses_chat(chat, tokenizer), max_new_tokens=max_new_tokens), good
