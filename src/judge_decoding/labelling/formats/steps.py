"""Answers as steps, as in data sets for process supervision: the first wrong step is the error."""

from __future__ import annotations

from collections.abc import Sequence

from judge_decoding.data.cases import Case
from judge_decoding.errors import RowError
from judge_decoding.labelling.labels.arithmetic import false_equation


def join(steps: Sequence[str], wrong: int | None, separator: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Join ``steps`` to an answer; return it with the span of the wrong step."""
    answer = separator.join(steps)
    if wrong is None:
        return answer, ()
    start = sum(len(step) + len(separator) for step in steps[:wrong])
    return answer, ((start, start + len(steps[wrong])),)


def split(case: Case, separator: str) -> tuple[list[str], int | None]:
    """Split a case's answer into steps; return them with the index of the step that contains its first error."""
    steps = case.answer.split(separator)
    if not case.errors:
        return steps, None
    first, end = min(start for start, _ in case.errors), -len(separator)
    for number, step in enumerate(steps):
        end += len(separator) + len(step)
        if first < end + (number < len(steps) - 1) * len(separator):
            return steps, number
    return steps, len(steps) - 1


def located_case(
    *,
    name: str,
    question: str,
    steps: Sequence[str],
    wrong: int | None,
    separator: str,
    first: int,
    writer: str,
    correct: bool | None,
    reference: str = "",
) -> Case:
    """The case of an answer in steps, of which ``wrong`` (from 0) is the first wrong one; None for a right answer.

    If the wrong step contains a false equation, its result is the error. The case's source, the data set's ``name`` and
    the kind of the error, records which it is. ``first`` is the number of the first step in the data set, for messages.

    Raises:
        RowError: there are no steps, or the wrong step does not exist or is empty.
    """
    if not any(step.strip() for step in steps):
        raise RowError("has no steps; give those of the answer, or remove the row")
    if wrong is not None and not 0 <= wrong < len(steps):
        raise RowError(
            f"has its first error in step {wrong + first}, but its steps are {first} to {len(steps) - 1 + first}; "
            "correct the number, or remove the row"
        )
    answer, errors = join(steps, wrong, separator)
    kind = "right"
    if wrong is not None:
        if not steps[wrong].strip():
            raise RowError(f"has its first error in step {wrong + first}, which is empty; remove the row")
        kind, result = "wrong step", false_equation(steps[wrong])
        if result is not None:
            kind, ((start, _),) = "false equation", errors
            errors = ((start + result[0], start + result[1]),)
    return Case(
        question=question, answer=answer, errors=errors, source=f"{name}: {kind}", writer=writer, correct=correct,
        reference=reference,
    )  # fmt: skip
