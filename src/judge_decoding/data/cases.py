"""A case: one answer with its errors located; a TokenCourt file holds one in each line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from judge_decoding.data.starter import FILE, case_file
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import rows, write_text


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
        correct: whether a checker found the final result right; an answer found wrong without ``errors`` is not
            located yet and teaches nothing.
        judged: the only parts of the answer that have a verdict, where not all have; such spans as ``errors``.
        token_ids: question and answer in tokens, as a model wrote them or as the label is about them; another
            tokenizer would cut the same text elsewhere.
        score: what the verdict was decided by, where a number was; higher is better.
        tokenizer: fingerprint of the tokenizer that ``token_ids`` are of.
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
    correct: bool | None = None
    judged: tuple[tuple[int, int], ...] | None = None
    token_ids: tuple[int, ...] | None = None
    tokenizer: str = ""
    score: float | None = None

    @model_validator(mode="after")
    def _spans_inside(self) -> Case:
        for name, spans in (("error", self.errors), ("judged", self.judged or ())):
            for start, end in spans:
                if not 0 <= start <= end <= len(self.answer):
                    raise ValueError(
                        f"the {name} span [{start}, {end}] is outside the answer of {len(self.answer)} characters"
                    )
        return self

    @property
    def located(self) -> bool:
        """Whether the verdicts are known: not for an answer known to be wrong, but not where."""
        return bool(self.errors) or self.correct is not False


def read_cases(path: str | Path, on_bad: Callable[[str], None] | None = None) -> list[Case]:
    """Read a TokenCourt file (JSONL).

    Args:
        path: the file; ``starter`` is the set that comes with the package.
        on_bad: told of each line that is no case, in a sentence that names it; the line is left out. Without it the
            first such line is an error.

    Raises:
        JudgeDecodingError: it cannot be read, has no case, or a line is not a case; the line is named.
    """
    return [case for _, case in read_numbered(path, on_bad)]


def read_numbered(path: str | Path, on_bad: Callable[[str], None] | None = None) -> list[tuple[int, Case]]:
    """The same with the number of each case's line; see `read_cases`."""
    path = case_file(path)
    cases = list(rows(path, "the data set", Case, "is not a case: {}; mend or remove the line.", on_bad))
    if not cases:
        raise JudgeDecodingError(f"{path} has no cases; a judge needs answers with and without located errors.")
    return cases


def starter_cases() -> list[Case]:
    """The starter set: real models' answers to reasoning questions in English, most with the first error located.

    Questions are plain text. What is in it, and under which licences, is in ``starter_set/README.md`` beside this file.
    """
    return read_cases(FILE)


def write_cases(path: str | Path, cases: Iterable[Case]) -> None:
    """Write a TokenCourt file, whole or not at all."""
    write_text(Path(path), "".join(case.model_dump_json(exclude_defaults=True) + "\n" for case in cases))
