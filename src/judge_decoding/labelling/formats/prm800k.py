"""PRM800K (https://github.com/openai/prm800k): people's ratings of the steps of solutions."""

from __future__ import annotations

from collections.abc import Sequence

from judge_decoding.data.cases import Case
from judge_decoding.errors import RowError
from judge_decoding.labelling.formats.base import Foreign, Format, json_line, json_rows
from judge_decoding.labelling.formats.steps import join, split

SEPARATOR = "\n"


class _Completion(Foreign):
    text: str
    rating: int | None = None


class _Step(Foreign):
    completions: tuple[_Completion, ...] | None = None
    human_completion: _Completion | None = None
    chosen_completion: int | None = None


class _Label(Foreign):
    steps: tuple[_Step, ...]
    total_time: float | None = None
    finish_reason: str


class _Question(Foreign):
    problem: str
    ground_truth_answer: str | None = None


class _Prm800kRow(Foreign):
    labeler: str = ""
    question: _Question
    label: _Label


def _make(row: _Prm800kRow) -> list[Case]:
    if row.label.finish_reason not in ("found_error", "solution"):
        raise RowError(f"ends with {row.label.finish_reason} and not with a verdict")
    steps: list[str] = []
    wrong: int | None = None
    for step in row.label.steps:
        completion = _taken(step)
        if completion is None:
            break
        steps.append(completion.text)
        if completion.rating == -1:
            wrong = len(steps) - 1
            break
    if not steps or (wrong is None and row.label.finish_reason == "found_error"):
        raise RowError("has found_error, but no step rated -1")
    answer, errors = join(steps, wrong, SEPARATOR)
    return [
        Case(
            question=row.question.problem,
            answer=answer,
            errors=errors,
            ended=row.label.finish_reason == "solution" and wrong is None,
            source="prm800k",
            annotator=row.labeler,
            seconds=None if row.label.total_time is None else row.label.total_time / 1000,
            reference=row.question.ground_truth_answer or "",
        )
    ]


def _taken(step: _Step) -> _Completion | None:
    """The completion with which a solution continues; if none was chosen, the first wrong one."""
    offered = step.completions or ()
    if step.chosen_completion is not None and 0 <= step.chosen_completion < len(offered):
        return offered[step.chosen_completion]
    return step.human_completion or next((one for one in offered if one.rating == -1), None)


def _write(cases: Sequence[Case]) -> str:
    rows = []
    for case in cases:
        steps, wrong = split(case, SEPARATOR)
        taken = steps if wrong is None else steps[: wrong + 1]
        rows.append(
            json_line(
                {
                    "labeler": case.annotator,
                    "question": {"problem": case.question, "ground_truth_answer": case.reference or None},
                    "label": {
                        "steps": [
                            {
                                "completions": [{"text": text, "rating": -1 if number == wrong else 1}],
                                "human_completion": None,
                                "chosen_completion": None if number == wrong else 0,
                            }
                            for number, text in enumerate(taken)
                        ],
                        "total_time": None if case.seconds is None else case.seconds * 1000,
                        "finish_reason": "solution" if wrong is None else "found_error",
                    },
                }
            )
        )
    return "".join(rows)


PRM800K = Format("prm800k", lambda path, on_bad: json_rows(path, on_bad, _Prm800kRow, _make), _write)
