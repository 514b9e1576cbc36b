"""Answers as steps, as the data sets of process supervision have them: the first wrong step is the error."""

from __future__ import annotations

from collections.abc import Sequence

from judge_decoding.data.cases import Case


def join(steps: Sequence[str], wrong: int | None, separator: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The answer that ``steps`` make, and the span of the one that is wrong."""
    answer = separator.join(steps)
    if wrong is None:
        return answer, ()
    start = sum(len(step) + len(separator) for step in steps[:wrong])
    return answer, ((start, start + len(steps[wrong])),)


def split(case: Case, separator: str) -> tuple[list[str], int | None]:
    """The steps of a case's answer, and which one holds its first error."""
    steps = case.answer.split(separator)
    if not case.errors:
        return steps, None
    first, end = min(start for start, _ in case.errors), -len(separator)
    for number, step in enumerate(steps):
        end += len(separator) + len(step)
        if first < end + (number < len(steps) - 1) * len(separator):
            return steps, number
    return steps, len(steps) - 1
