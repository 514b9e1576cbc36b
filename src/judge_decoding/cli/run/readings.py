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


def judge_of(context: typer.Context, head: str) -> JudgeHead:
    """The head; a draft model is refused where it reads the target alone."""
    judge = JudgeHead.from_pretrained(head)
    if judge.config.draft is None:
        check_used(context, "With a judge head that reads the target alone", "--draft")
    return judge


def readings_of(
    cases: list[Case],
    folder: Path,
    target: str,
    judge: JudgeHead | None,
    draft: str | None,
    device: str | None = None,
) -> dict[str, AnswerReading]:
    """Let the target read the answers that it has not read before."""
    reader = ReadingModels(embedded_path(target, "target"), judge, embedded_path(draft, "draft"), device)
    with steps() as tell:
        readings = read_answers(cases, reader, folder, progress=partial(tell, "the target reads the answers"))
    if missing := len({case_id(case) for case in cases} - readings.keys()):
        say(f"Empty or too long for the target, so shown as words, and last: {missing} answers.", err=True)
    return readings
