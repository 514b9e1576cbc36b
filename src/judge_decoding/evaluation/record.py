"""Store the answers of an evaluation as they are finished, so that an interrupted run can resume."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from judge_decoding.core.results import ItemResult
from judge_decoding.evaluation.grading import Grade
from judge_decoding.io.files import write_text
from judge_decoding.io.resume import Unfinished

ResultKey = tuple[str, str]
"""A method's name and an item's key."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """The result of an item, with additional data (any JSON value)."""

    result: ItemResult
    extra: Any = None


class ResultRecord(Unfinished[ResultKey, RecordedAnswer]):
    """The answers so far."""

    row = TypeAdapter(tuple[ResultKey, RecordedAnswer])


class KeptRecord(ResultRecord):
    """Answers that stay in ``output`` itself, so that repeating the work does not generate them again."""

    suffix = ""
    replaces = True


class GradeRecord(Unfinished[tuple[ResultKey, int], Grade]):
    """The grades so far, by answer and turn (from 0)."""

    row = TypeAdapter(tuple[tuple[ResultKey, int], Grade])

    def finish(self) -> None:
        """Write all grades to the output."""
        rows = [
            {"method": method, "item": item, "turn": turn, "grade": one.grade, "reply": one.reply}
            for ((method, item), turn), one in self.done.items()
        ]
        write_text(self.output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        self.part.unlink(missing_ok=True)
