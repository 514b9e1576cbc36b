"""A case: one answer with its errors located; a TokenCourt file holds one in each line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.files import first_problem, read_text, write_text


class Case(BaseModel):
    """One labelled answer.

    Attributes:
        question: the whole prompt, as the target reads it (chat template applied).
        answer: the text that follows it.
        errors: character spans ``[start, end)`` of the answer that are wrong; the first one is where it goes
            wrong. Empty for a right answer. ``[n, n]`` with n the answer's length: it should not end there.
        ended: the answer ended by itself (an end token follows it), not by a token limit.
        source: where the label comes from, such as "human" or "checker".
        writer: which model or person wrote the answer.
        annotator: who labelled it.
        seconds: how long labelling took.
        reference: a right answer to the question, for people and checkers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    answer: str
    errors: tuple[tuple[int, int], ...] = ()
    ended: bool = True
    source: str = ""
    writer: str = ""
    annotator: str = ""
    seconds: float | None = None
    reference: str = ""

    @model_validator(mode="after")
    def _spans_inside(self) -> Case:
        for start, end in self.errors:
            if not 0 <= start <= end <= len(self.answer):
                raise ValueError(
                    f"the error span [{start}, {end}] is outside the answer of {len(self.answer)} characters"
                )
        return self


def read_cases(path: str | Path) -> list[Case]:
    """Read a TokenCourt file (JSONL).

    Raises:
        JudgeDecodingError: it cannot be read, is empty, or a line is not a case; the line is named.
    """
    path = Path(path)
    cases = []
    # Not splitlines, which also splits at the line separators that JSON allows inside a string.
    for number, line in enumerate(read_text(path, "the data set").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cases.append(Case.model_validate_json(line))
        except ValidationError as error:
            raise JudgeDecodingError(
                f"{path}, line {number} is not a case: {first_problem(error)}; mend or remove the line."
            ) from error
    if not cases:
        raise JudgeDecodingError(f"{path} has no cases; a judge needs answers with and without located errors.")
    return cases


def write_cases(path: str | Path, cases: Iterable[Case]) -> None:
    """Write a TokenCourt file, whole or not at all."""
    write_text(Path(path), "".join(case.model_dump_json(exclude_defaults=True) + "\n" for case in cases))
