"""Having answers graded by a model behind an endpoint, for ``evaluate`` and ``sweep``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judge_decoding.cli.terminal import warn

if TYPE_CHECKING:
    from judge_decoding.evaluation.grading import Grade
    from judge_decoding.tasks.base import Item

Key = tuple[str, str]
"""A method's name and an item's key."""


def grade_answers(
    answered: Mapping[Key, tuple[Item, Sequence[str]]], grader: str, output: Path, settings: dict[str, Any]
) -> dict[Key, dict[int, Grade]]:
    """The grades of each answer by turn, from 0; they are kept in ``output``, a line each.

    A request that comes to nothing leaves its answer without a grade, and is told.
    """
    from judge_decoding.cli.court_files import bar
    from judge_decoding.evaluation.grading import grade
    from judge_decoding.evaluation.record import Grades
    from judge_decoding.io.endpoint import PREFIX, Endpoint

    grades = Grades(output, settings | {"grader": grader})
    total = sum(min(len(texts), len(item.turns)) for item, texts in answered.values())
    reasons: list[str] = []
    endpoint = Endpoint(grader.removeprefix(PREFIX))
    with bar("grading", total, len(grades.known)) as advance:

        def done(key: Key, turn: int, one: Grade) -> None:
            grades.add(key, turn, one)
            advance()

        def failed(_key: Key, _turn: int, why: str) -> None:
            reasons.append(why)
            advance()

        grade(answered, endpoint, done, failed, known=grades.known)
    missing = len(reasons) + sum(one.grade is None for one in grades.known.values())
    if missing:
        why = f"; the first request failed because {reasons[0].rstrip('.')}" if reasons else ""
        warn(f"{missing} of {total} answers have no grade{why}. Their items are left out of the mean.")
    found: dict[Key, dict[int, Grade]] = {key: {} for key in answered}
    for (key, turn), one in grades.known.items():
        found[key][turn] = one
    grades.finish()
    return found


def means(
    answered: Mapping[Key, tuple[Item, Sequence[str]]], grades: Mapping[Key, Mapping[int, Grade]]
) -> dict[str, list[float]]:
    """By method, the grades of the items of which every turn has one."""
    from judge_decoding.evaluation.grading import mean_grade

    found: dict[str, list[float]] = {}
    for key, (item, _) in answered.items():
        if (mean := mean_grade(item, grades[key])) is not None:
            found.setdefault(key[0], []).append(mean)
    return found


def check_grader(scoring: str, grader: str | None) -> None:
    """Say that answers stay without grades, or that there is nothing to grade.

    Raises:
        JudgeDecodingError: a grader is named for a task whose answers are not graded, or there is no key for it.
    """
    from judge_decoding.errors import JudgeDecodingError

    if grader is not None and scoring != "grade":
        raise JudgeDecodingError("The answers of this task are not graded; leave --grader out.")
    if grader is not None:
        from judge_decoding.io.endpoint import PREFIX, Endpoint

        Endpoint(grader.removeprefix(PREFIX))  # what it lacks is told before the work
    if grader is None and scoring == "grade":
        warn("The answers stay without grades; name a model that gives them with --grader.")
