"""Check the options of the calibration task, by which a threshold is chosen, for ``train`` and ``fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.options import check_used

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
