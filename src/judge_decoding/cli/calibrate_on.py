"""The task that a threshold is chosen by, for ``train`` and ``fit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judge_decoding.cli.options import check_used

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from judge_decoding.tasks.base import Item
    from judge_decoding.tasks.prompt_format import PromptFormat

CalibrateOn = Annotated[
    str | None,
    typer.Option(
        help="Task that chooses the threshold: a name such as gsm8k, or JSONL with question, the whole prompt, and "
        "reference in each line."
    ),
]
CalibrateData = Annotated[Path | None, typer.Option(help="A local file instead of the Hub's data of --calibrate-on.")]
CalibrateLimit = Annotated[int | None, typer.Option(min=1, help="So many of --calibrate-on at most, drawn at random.")]


def is_file(spelling: str) -> bool:
    """Whether ``--calibrate-on`` is a file, and no task's name."""
    name = spelling.partition("(")[0]
    return Path(spelling).exists() or not name.replace("-", "_").isidentifier()


def check_calibrate_on(
    context: typer.Context, spelling: str, of_tasks: tuple[str, ...], of_files: tuple[str, ...] = ()
) -> None:
    """Refuse options that are for tasks by name where a file is given, and the other way round.

    Raises:
        JudgeDecodingError: some are given.
    """
    if is_file(spelling):
        check_used(context, "Where --calibrate-on is a file", *of_tasks, remedy="name a task there")
    else:
        check_used(context, "Where --calibrate-on is a task by name", *of_files, remedy="name a file there")


def calibration(
    spelling: str,
    data: Path | None,
    limit: int | None,
    *,
    result: str,
    max_new_tokens: int | None,
    chat: bool | None,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[PromptFormat, list[Item]]:
    """What is asked to choose a threshold, and how; ``chat`` is None for "if there is a chat template".

    Raises:
        JudgeDecodingError: there is no such task, or it cannot be read or checked.
    """
    from judge_decoding.cli.court_files import Warnings
    from judge_decoding.errors import JudgeDecodingError
    from judge_decoding.tasks import parse_task, read_items
    from judge_decoding.tasks.prompt_format import PromptFormat
    from judge_decoding.tasks.prompts import Prompts
    from judge_decoding.training.thresholds import calibration_items

    if is_file(spelling):

        def refuse(sentence: str) -> None:
            raise JudgeDecodingError(sentence)

        task = Prompts(result)
        items = read_items(task, Path(spelling), limit=limit, on_bad=refuse)
        return PromptFormat(task, max_new_tokens=max_new_tokens), calibration_items(task, items)
    named = parse_task(spelling)
    warnings = Warnings()
    try:
        items = read_items(named, data, limit=limit, on_bad=warnings)
    finally:
        warnings.close()
    template = bool(tokenizer.chat_template)
    if chat and not template:
        raise JudgeDecodingError("This model has no chat template; leave --chat out for the task's plain form.")
    asking = PromptFormat(named, template if chat is None else chat, max_new_tokens=max_new_tokens)
    return asking, calibration_items(named, items)
