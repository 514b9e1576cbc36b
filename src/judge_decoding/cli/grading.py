"""Check whether the answers of a task can be graded, for ``evaluate`` and ``sweep``."""

from __future__ import annotations

from judge_decoding.cli.terminal import warn
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.endpoint import PREFIX, Endpoint


def check_grader(scoring: str, grader: str | None) -> None:
    """Say that answers stay without grades, or that there is nothing to grade.

    Raises:
        JudgeDecodingError: a grader is named for a task whose answers are not graded, or there is no key for it.
    """
    if grader is not None and scoring != "grade":
        raise JudgeDecodingError("The answers of this task are not graded; leave --grader out.")
    if grader is not None:
        Endpoint(grader.removeprefix(PREFIX))  # fails before the work if something is missing
    if grader is None and scoring == "grade":
        warn("The answers are not graded; give a model with --grader.")
