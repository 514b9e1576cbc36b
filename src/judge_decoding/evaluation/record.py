"""Store the answers of an evaluation as they are finished, so that an interrupted run can resume."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from judge_decoding.core.results import ItemResult
from judge_decoding.evaluation.grading import Grade
from judge_decoding.io.files import write_text
from judge_decoding.io.resume import Unfinished

ResultKey = tuple[str, str]
"""A method's name and an item's key."""


class ResultRecord(Unfinished):
    """The answers so far, in ``<output>.part``: a line with the settings, then one line per answer.

    Attributes:
        known: the results of the items, by method and item.
        extra: additional data stored with each answer.
    """

    def __init__(self, output: Path, settings: dict[str, Any]) -> None:
        self.known: dict[ResultKey, ItemResult] = {}
        self.extra: dict[ResultKey, Any] = {}
        super().__init__(output, settings)

    def load_row(self, row: Any) -> None:  # noqa: ANN401  (any JSON value)
        """Load a stored answer."""
        key = row["method"], row["answered"]["item"]
        self.known[key], self.extra[key] = ItemResult(**row["answered"]), row.get("told")

    def add(self, method: str, answered: ItemResult, extra: Any = None) -> None:  # noqa: ANN401  (any JSON value)
        """Store an answer with its additional data."""
        key = method, answered.item
        self.known[key], self.extra[key] = answered, extra
        self.append({"method": method, "answered": asdict(answered), "told": extra})


class GradeRecord(Unfinished):
    """The grades so far, in ``<output>.part``, and in ``output`` at the end.

    Attributes:
        known: the grade of each answer, by method and item, and turn (from 0).
    """

    def __init__(self, output: Path, settings: dict[str, Any]) -> None:
        self.known: dict[tuple[ResultKey, int], Grade] = {}
        super().__init__(output, settings)

    def load_row(self, row: Any) -> None:  # noqa: ANN401  (any JSON value)
        """Load a stored grade."""
        self.known[(row["method"], row["item"]), row["turn"]] = Grade(row["grade"], row["reply"])

    def add(self, key: ResultKey, turn: int, grade: Grade) -> None:
        """Store a grade."""
        self.known[key, turn] = grade
        self.append(_row(key, turn, grade))

    def finish(self) -> None:
        """Write all grades to the output."""
        rows = [json.dumps(_row(key, turn, one), ensure_ascii=False) for (key, turn), one in self.known.items()]
        write_text(self.output, "".join(f"{row}\n" for row in rows))
        self.part.unlink(missing_ok=True)


def _row(key: ResultKey, turn: int, grade: Grade) -> dict[str, Any]:
    return {"method": key[0], "item": key[1], "turn": turn, "grade": grade.grade, "reply": grade.reply}
