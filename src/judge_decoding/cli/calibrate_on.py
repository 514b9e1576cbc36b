"""Check the options of the calibration task, by which a threshold is chosen, for ``train`` and ``fit``."""

from __future__ import annotations

from pathlib import Path

import typer

from judge_decoding.cli.options import check_used


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
        check_used(context, "Where --calibrate-on is a file", *of_tasks, remedy="give a task there")
    else:
        check_used(context, "Where --calibrate-on is a task by name", *of_files, remedy="give a file there")
