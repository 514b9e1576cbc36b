"""Long labelling that can be interrupted at any moment and resumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from judge_decoding.data.cases import Case, write_cases
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.resume import Unfinished


class LabellingProgress(Unfinished):
    """The questions labelled so far, one per line.

    Args:
        output: the file for the cases when all are done.
        settings: what must not change between two runs.

    Raises:
        JudgeDecodingError: the part has other settings, or cannot be read or written.
    """

    def __init__(self, output: Path, settings: dict[str, Any]) -> None:
        self.done: dict[str, list[Case]] = {}
        super().__init__(output, settings)

    def load_row(self, row: Any) -> None:  # noqa: ANN401  (any JSON value)
        """Remember a finished question."""
        self.done[row["question"]] = [Case.model_validate(case) for case in row["cases"]]

    def add(self, question: str, cases: list[Case]) -> None:
        """Save a finished question."""
        self.done[question] = cases
        rows = [case.model_dump(mode="json", exclude_defaults=True) for case in cases]
        self.append({"question": question, "cases": rows})

    def finish(self, questions: Sequence[str], written: Callable[[], None] = lambda: None) -> list[Case]:
        """Write the cases of ``questions`` to the output, in that order, and remove the part.

        An earlier run with the same settings may have had other questions; their cases are left out. ``written`` is
        called before the part is removed, so that its record cannot be lost together with the part.

        Raises:
            JudgeDecodingError: there are no cases.
        """
        cases = [case for question in questions for case in self.done.get(question, ())]
        if not cases:
            raise JudgeDecodingError(
                "There is nothing to label: the draft agrees with the target everywhere; use another draft or more "
                "questions."
            )
        write_cases(self.output, cases)
        written()
        self.part.unlink(missing_ok=True)
        return cases
