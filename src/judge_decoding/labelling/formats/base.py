"""The definition of a format, and row reading that reports bad rows and keeps the good ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from judge_decoding.data.cases import Case
from judge_decoding.errors import JudgeDecodingError, RowError
from judge_decoding.io.files import LineT, first_problem, lines, parse_json
from judge_decoding.io.inputs import DOCUMENT

OnBad = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Format:
    """A file format.

    Attributes:
        name: the name on the command line.
        rows: the rows of a file with their names ("line 3"), each with a function that makes its cases or raises
            `RowError`.
        write: returns the text of a file of cases; None for a format that can only be read.
    """

    name: str
    rows: Callable[[Path, OnBad], Iterator[tuple[str, Callable[[], list[Case]]]]]
    write: Callable[[Sequence[Case]], str] | None = None

    def read(self, path: Path, on_bad: OnBad) -> list[Case]:
        """The cases of a file. ``on_bad`` is called with a sentence about each invalid row, which names the row.

        Raises:
            JudgeDecodingError: the file cannot be read, or contains no case.
        """
        cases: list[Case] = []
        for where, make in self.rows(path, on_bad):
            try:
                cases += make()
            except ValidationError as error:
                on_bad(f"{path}, {where} is not a case: {first_problem(error)}; correct or remove it.")
            except RowError as error:
                on_bad(f"{path}, {where} {error}.")
        if not cases:
            raise JudgeDecodingError(f"{path} has no cases in the format {self.name}; check the file and the format.")
        return cases


class Foreign(BaseModel):
    """A row of an external file, which may contain fields that we do not use."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def json_rows(
    path: Path, on_bad: OnBad, model: type[LineT], make: Callable[[LineT], list[Case]]
) -> Iterator[tuple[str, Callable[[], list[Case]]]]:
    """The rows of a JSON file, one object a line or one array of objects."""

    def deferred(text: str) -> Callable[[], list[Case]]:
        return lambda: make(model.model_validate_json(text))

    found = lines(path, "the file", on_bad, longest=DOCUMENT)
    first = next(found, None)
    if first is None:
        return
    if first[1].lstrip().startswith("["):
        try:
            array = parse_json("\n".join(line for _, line in chain([first], found)))
        except ValueError as error:
            raise JudgeDecodingError(f"{path} is not complete JSON: {error}; export it again.") from error
        for number, item in enumerate(array, start=1):
            yield f"item {number}", deferred(json.dumps(item))
        return
    for number, line in chain([first], found):
        yield f"line {number}", deferred(line)


def json_line(row: object) -> str:
    """One row of a JSONL file."""
    return json.dumps(row, ensure_ascii=False) + "\n"
