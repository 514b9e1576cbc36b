"""Check the task and its options, for ``evaluate`` and ``sweep``."""

from __future__ import annotations

import typer

from judge_decoding.cli.grading import check_grader
from judge_decoding.cli.options import check_used
from judge_decoding.cli.task_options import CODE_OPTIONS
from judge_decoding.tasks import parse_task
from judge_decoding.tasks.base import Task


def checked_task(context: typer.Context, spelling: str, grader: str | None, *, allow_code: bool, sandbox: str) -> Task:
    """The task; options that do nothing for it are refused.

    Raises:
        JudgeDecodingError: there is no such task, or an option does nothing for it.
    """
    task = parse_task(spelling, allow_code=allow_code, sandbox=sandbox)
    if not task.runs_code:
        check_used(context, f"For the task {task.name}, which runs no code,", *CODE_OPTIONS)
    if task.scoring != "check":
        check_used(context, f"For the task {task}, whose answers are not right or wrong,", "--margin")
    check_grader(task.scoring, grader)
    return task
