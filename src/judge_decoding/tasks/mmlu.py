"""MMLU: exam questions of 57 subjects with four choices (Hendrycks et al., arXiv 2009.03300)."""

from __future__ import annotations

from typing import Any

from judge_decoding.errors import RowError
from judge_decoding.tasks.base import HubDataset, Item, text_of
from judge_decoding.tasks.choices import LETTERS, MultipleChoice, choice_item


class MMLU(MultipleChoice):
    """The answer must name the right letter; `choices` explains why it is answered in words.

    Args:
        subject: one of the subjects, such as ``anatomy``; the default is all of them.
    """

    name = "mmlu"
    source = HubDataset("cais/mmlu", "all")

    def __init__(self, subject: str | None = None) -> None:
        self.subject = subject

    def item(self, row: Any, location: str) -> Item | None:  # noqa: ANN401  (any JSON value)
        """Read a row with ``question``, ``subject``, ``choices``, and ``answer``: a number from 0, or a letter."""
        question, subject = text_of(row, "question"), text_of(row, "subject")
        if self.subject not in (None, subject):
            return None
        right = row.get("answer")
        if isinstance(right, str) and len(right) == 1 and right in LETTERS:
            right = LETTERS.index(right)
        if not isinstance(right, int) or isinstance(right, bool):
            raise RowError("has neither a number nor a letter in its field answer")
        return choice_item(location, question, row.get("choices"), right, subject)
