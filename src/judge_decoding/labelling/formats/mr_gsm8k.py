"""MR-GSM8K (https://github.com/dvlab-research/MR-GSM8K): a model's solutions; people marked the first wrong step."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import StrictInt

from judge_decoding.data.cases import Case
from judge_decoding.errors import RowError
from judge_decoding.labelling.formats.base import Foreign, Format, json_rows
from judge_decoding.labelling.formats.steps import located_case

NAME, SEPARATOR = "mr-gsm8k", "\n"
WRITER = f"{NAME}: model"

# "Step 3: " comes from the data set and calculator annotations from GSM8K. Human solutions have no numbered steps and
# the model's have hardly any annotations: if they stayed, a head would learn to recognise the writer.
_NUMBER, _ANNOTATION = re.compile(r"^Step \d+:\s*"), re.compile(r"<<[^<>]*>>")
_PROGRAM = "\nWrite a Python program that prints the answer."


class _MrGsm8kRow(Foreign):
    question: str
    ground_truth_solution: str = ""
    model_output_steps: tuple[str, ...]
    model_output_answer_correctness: str = ""
    model_output_solution_correctness: Literal["correct", "wrong"]
    model_output_solution_first_error_step: StrictInt | Literal["N/A"] = "N/A"
    question_type: str = "original"


def _make(row: _MrGsm8kRow) -> list[Case]:
    number, question = row.model_output_solution_first_error_step, row.question
    wrong = None if number == "N/A" else number - 1
    if (wrong is None) != (row.model_output_solution_correctness == "correct"):
        raise RowError(
            f"has a solution that is {row.model_output_solution_correctness} and the first error step {number}; "
            "correct one of them, or remove the row"
        )
    if row.question_type == "POT":
        question += _PROGRAM
    answered = located_case(
        name=NAME, question=question, steps=[_plain(step) for step in row.model_output_steps], wrong=wrong,
        separator=SEPARATOR, first=1, writer=WRITER,
        correct={"correct": True, "wrong": False}.get(row.model_output_answer_correctness),
    )  # fmt: skip
    if not row.ground_truth_solution.strip():
        return [answered]
    reversal = "reversed questions" if row.question_type == "reversed" else "people"
    right = located_case(
        name=NAME, question=row.question, steps=[_ANNOTATION.sub("", row.ground_truth_solution).strip()], wrong=None,
        separator=SEPARATOR, first=1, writer=f"{NAME}: {reversal}", correct=True,
    )  # fmt: skip
    return [answered, right]


def _plain(step: str) -> str:
    return _ANNOTATION.sub("", _NUMBER.sub("", step))


MR_GSM8K = Format(NAME, lambda path, on_bad: json_rows(path, on_bad, _MrGsm8kRow, _make))
