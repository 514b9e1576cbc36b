"""BIG-Bench Mistake (https://github.com/WHGTyen/BIG-Bench-Mistake): traces of PaLM 2 and the index of their mistake."""

from __future__ import annotations

import re

from pydantic import Field, StrictInt

from judge_decoding.data.cases import Case
from judge_decoding.labelling.formats.base import Foreign, Format, json_rows
from judge_decoding.labelling.formats.steps import located_case

NAME, SEPARATOR = "bigbench-mistake", "\n"
WRITER = "PaLM 2-L"

# A row does not name its task, and the inputs of two tasks contain no question: they get the sentence that PaLM 2 got.
_TASKS = (
    ("dyck_languages", r"[\s<>(){}\[\]]+",
     "Complete the rest of the sequence, making sure that the parentheses are closed properly. Input: {}"),
    ("multistep_arithmetic", r"[-+*/()\d\s]+=\s*", "{}"),
    ("word_sorting", r"[^\s.,:=?]+( [^\s.,:=?]+)*", "Sort the following words alphabetically: List: {}"),
    ("tracking_shuffled_objects", r"(?s).*\b(swap|trade|trading|switch).*", "{}"),
    ("logical_deduction", r"(?s).*", "{}"),
)  # fmt: skip


class _BigBenchRow(Foreign):
    input_text: str = Field(alias="input")
    steps: tuple[str, ...]
    mistake_index: StrictInt | None
    answer: str | None = None
    target: str | None = None


def _make(row: _BigBenchRow) -> list[Case]:
    task, _, form = next(known for known in _TASKS if re.fullmatch(known[1], row.input_text))
    answer, target = row.answer, row.target
    return [
        located_case(
            name=f"{NAME}/{task}", question=form.format(row.input_text), steps=row.steps, wrong=row.mistake_index,
            separator=SEPARATOR, first=0, writer=WRITER,
            correct=None if answer is None or target is None else answer.strip() == target.strip(),
            reference=target or "",
        )
    ]  # fmt: skip


BIGBENCH_MISTAKE = Format(NAME, lambda path, on_bad: json_rows(path, on_bad, _BigBenchRow, _make))
