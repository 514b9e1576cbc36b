"""``judge-decoding score``: score any text as the draft."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.decoding_options import DraftLengths, Rules
from judge_decoding.cli.models import Device, DtypeOption, JudgeOption, Target, check_dtype
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Html, Json, Overwrite, Show, check_outputs
from judge_decoding.cli.panels import RUN, TASK
from judge_decoding.cli.task_options import Chat, Limit, PromptField, Template


def score(
    context: typer.Context,
    answers: Annotated[Path, typer.Argument(help="Answers (JSONL: question and answer), or a TokenCourt file.")],
    target: Target,
    judge: JudgeOption = None,
    rule: Rules = None,
    num_draft_tokens: DraftLengths = None,
    prompt_field: PromptField = None,
    answer_field: Annotated[
        str, typer.Option(help="Field of the answer; by default answer.", rich_help_panel=TASK)
    ] = "answer",
    template: Template = None,
    chat: Chat = None,
    limit: Limit = None,
    show: Show = 5,
    batch_tokens: Annotated[
        int,
        typer.Option(min=1, help="Maximum tokens per forward pass; fewer take less memory.", rich_help_panel=RUN),
    ] = 1024,
    dtype: DtypeOption = "auto",
    device: Device = None,
    json: Json = False,
    html: Html = None,
    overwrite: Overwrite = False,
) -> None:
    """Count the tokens per round that each rule would keep of existing answers.

    The answers can come from people or from a strong model, to see whether judge decoding would help on your workload.
    No draft model is needed.
    """
    check_outputs([html], [answers, target, judge], overwrite=overwrite)
    if html is None:
        check_used(context, "Without --html", "--show", "--overwrite", remedy="give a page")
    check_dtype(dtype)
    from judge_decoding.cli.run.score import run  # noqa: PLC0415  (loads torch)

    run(
        answers, target, judge, rule, num_draft_tokens, prompt_field, answer_field, template, limit, show,
        batch_tokens, dtype, device, html, chat=chat, json=json,
    )  # fmt: skip
