"""``judge-decoding score``: score any text as the draft."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.models import Device, DtypeOption, check_dtype
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Overwrite, check_outputs


def score(
    context: typer.Context,
    answers: Annotated[Path, typer.Argument(help="Answers (JSONL: question and answer), or a TokenCourt file.")],
    target: Annotated[str, typer.Option(help="Target model: Hub name or folder; 'reference' is the embedded one.")],
    judge: Annotated[str | None, typer.Option(help="Judge head: folder or Hub repository.")] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Verification rule, such as 'top_k(k=4)'; several times. See the command rules."),
    ] = None,
    num_draft_tokens: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Draft length; several times. One beyond the answers proposes the whole rest."),
    ] = None,
    prompt_field: Annotated[str, typer.Option(help="The field with the question.")] = "question",
    answer_field: Annotated[str, typer.Option(help="The field with the answer.")] = "answer",
    template: Annotated[
        str | None,
        typer.Option(help=r"The prompt the target reads, such as 'Q: {question}\nA: {answer}'; see the docs."),
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put the question through the model's chat template.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Read so many answers at most.")] = None,
    shown: Annotated[int, typer.Option(min=0, help="So many answers are shown on the page, the first ones.")] = 5,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a forward; less takes less memory.")] = 1024,
    dtype: DtypeOption = "auto",
    device: Device = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained web page here.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Tell how many tokens a round each rule would keep of answers that you have as text only.

    They can be by people or by a strong model: would this help your workload? There need be no draft model yet.
    """
    check_outputs([html], [answers, target, judge], overwrite=overwrite)
    if html is None:
        check_used(context, "Without --html", "--shown", "--overwrite", remedy="name a page")
    check_dtype(dtype)
    from judge_decoding.cli.run.score import run  # noqa: PLC0415  (loads torch)

    run(
        answers, target, judge, rule, num_draft_tokens, prompt_field, answer_field, template, limit, shown,
        batch_tokens, dtype, device, html, chat=chat, json=json,
    )  # fmt: skip
