"""ProcessBench (https://huggingface.co/datasets/Qwen/ProcessBench): the index of the first wrong step, -1 for none."""

from __future__ import annotations

from collections.abc import Sequence

from judge_decoding.data.cases import Case
from judge_decoding.errors import RowError
from judge_decoding.labelling.formats.base import Foreign, Format, json_line, json_rows
from judge_decoding.labelling.formats.steps import join, split

SEPARATOR = "\n\n"


class _ProcessBenchRow(Foreign):
    problem: str
    steps: tuple[str, ...]
    label: int
    generator: str = ""
    final_answer_correct: bool | None = None


def _make(row: _ProcessBenchRow) -> list[Case]:
    if not -1 <= row.label < len(row.steps):
        raise RowError(f"has label {row.label}, but {len(row.steps)} steps; it must be -1 or the index of a step")
    answer, errors = join(row.steps, None if row.label < 0 else row.label, SEPARATOR)
    return [
        Case(
            question=row.problem,
            answer=answer,
            errors=errors,
            source="processbench",
            writer=row.generator,
            correct=row.final_answer_correct,
        )
    ]


def _write(cases: Sequence[Case]) -> str:
    rows = []
    for number, case in enumerate(cases):
        steps, wrong = split(case, SEPARATOR)
        rows.append(
            json_line(
                {
                    "id": f"case-{number}",
                    "generator": case.writer,
                    "problem": case.question,
                    "steps": steps,
                    "final_answer_correct": case.correct,
                    "label": -1 if wrong is None else wrong,
                }
            )
        )
    return "".join(rows)


PROCESSBENCH = Format("processbench", lambda path, on_bad: json_rows(path, on_bad, _ProcessBenchRow, _make), _write)
