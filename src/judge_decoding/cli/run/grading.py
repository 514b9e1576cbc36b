"""Grade answers with a model at an endpoint, for ``evaluate`` and ``sweep``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from judge_decoding.cli.shared import bar
from judge_decoding.cli.terminal import warn
from judge_decoding.evaluation.grading import Grade, grade, mean_grade
from judge_decoding.evaluation.record import GradeRecord, ResultKey
from judge_decoding.io.endpoint import PREFIX, Endpoint
from judge_decoding.tasks.base import Item


def grade_answers(
    answered: Mapping[ResultKey, tuple[Item, Sequence[str]]], grader: str, output: Path, settings: dict[str, Any]
) -> dict[ResultKey, dict[int, Grade]]:
    """The grades of each answer by turn, from 0; they are kept in ``output``, a line each.

    A request that comes to nothing leaves its answer without a grade, and is reported.
    """
    grades = GradeRecord(output, settings | {"grader": grader})
    total = sum(min(len(texts), len(item.turns)) for item, texts in answered.values())
    reasons: list[str] = []
    endpoint = Endpoint(grader.removeprefix(PREFIX))
    with bar("grading", total, len(grades.done)) as advance:

        def done(key: ResultKey, turn: int, one: Grade) -> None:
            grades.add((key, turn), one)
            advance()

        def failed(_key: ResultKey, _turn: int, why: str) -> None:
            reasons.append(why)
            advance()

        grade(answered, endpoint, done, failed, known=grades.done)
    missing = len(reasons) + sum(one.grade is None for one in grades.done.values())
    if missing:
        why = f"; the first request failed because {reasons[0].rstrip('.')}" if reasons else ""
        warn(f"{missing} of {total} answers have no grade{why}. Their items are left out of the mean.")
    found: dict[ResultKey, dict[int, Grade]] = {key: {} for key in answered}
    for (key, turn), one in grades.done.items():
        found[key][turn] = one
    grades.finish()
    return found


def means(
    answered: Mapping[ResultKey, tuple[Item, Sequence[str]]], grades: Mapping[ResultKey, Mapping[int, Grade]]
) -> dict[str, list[float]]:
    """By method, the grades of the items of which every turn has one."""
    found: dict[str, list[float]] = {}
    for key, (item, _) in answered.items():
        if (mean := mean_grade(item, grades[key])) is not None:
            found.setdefault(key[0], []).append(mean)
    return found
