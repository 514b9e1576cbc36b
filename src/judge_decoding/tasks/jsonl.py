"""The user's own questions."""

from __future__ import annotations

from typing import Any

from judge_decoding.errors import RowError
from judge_decoding.io.questions import Fields
from judge_decoding.tasks.base import Item, Task
from judge_decoding.tasks.checkers import checker_of, unit_tests


class JSONL(Task):
    """A file with one question per line, checked as in ``court collect``.

    Args:
        checker: ``number``, ``choice``, ``exact``, ``regex:PATTERN``, ``tests``, or one of an installed package;
            without a checker, answers count for speed only.
        question: the field of the question; by default ``question`` or ``prompt``. Dots separate the names of nested
            fields.
        reference: the field of the right answer, or of the unit tests; by default ``reference``.
    """

    name = "jsonl"

    def __init__(self, checker: str | None = None, question: str | None = None, reference: str | None = None) -> None:
        self.checker, self.question, self.reference = checker, question, reference
        self.scoring = "check" if checker else "none"
        self.runs_code = checker == "tests"
        self._check = checker_of(checker) if checker and not self.runs_code else None
        self._fields = Fields(prompt=question, reference=reference)

    def item(self, row: Any, location: str) -> Item:  # noqa: ANN401  (any JSON value)
        """Read a row with the fields that the settings name."""
        question, reference = self._fields.read(row)
        if self.checker and not reference.strip():
            raise RowError("has no reference to check answers with; give its field as in jsonl(reference=answer)")
        return Item(location, (question,), reference)

    def check(self, item: Item, answer: str) -> bool | None:
        """Apply the checker."""
        if self.runs_code:
            return unit_tests(item.turns[-1], answer, item.reference, sandbox=self.sandbox)
        return self._check(item.turns[-1], answer, item.reference) if self._check else None
