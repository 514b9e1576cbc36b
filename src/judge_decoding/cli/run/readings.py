"""Let a target read the answers that ``court annotate`` shows."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import typer

from judge_decoding.cli.checks import check_used
from judge_decoding.cli.steps import steps
from judge_decoding.cli.terminal import say
from judge_decoding.data.cases import Case
from judge_decoding.judge.head import JudgeHead
from judge_decoding.labelling.annotate.pieces import case_id
from judge_decoding.labelling.annotate.reading import AnswerReading, ReadingModels, read_answers
from judge_decoding.names import embedded_path


def readings_of(
    context: typer.Context,
    cases: list[Case],
    folder: Path,
    target: str,
    judge: str | None,
    draft: str | None,
    device: str | None,
) -> dict[str, AnswerReading]:
    """Let the target read the answers that it has not read before; a draft that the judge does not need is refused."""
    head = None if judge is None else JudgeHead.from_pretrained(judge)
    if head is not None and head.config.draft is None:
        check_used(context, "With a judge head that reads the target alone", "--draft")
    reader = ReadingModels(embedded_path(target, "target"), head, embedded_path(draft, "draft"), device)
    with steps() as tell:
        readings = read_answers(cases, reader, folder, progress=partial(tell, "the target reads the answers"))
    if missing := len({case_id(case) for case in cases} - readings.keys()):
        say(f"Empty or too long for the target, so shown as words, and last: {missing} answers.", err=True)
    return readings
