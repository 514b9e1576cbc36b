"""ARC-Challenge: grade-school science questions with three to five choices (Clark et al., arXiv 1803.05457)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from judge_decoding.errors import RowError
from judge_decoding.tasks.base import HubDataset, Item, text_of
from judge_decoding.tasks.choices import MultipleChoice, choice_item


class ARC(MultipleChoice):
    """The answer must name the right letter; `choices` explains why it is answered in words.

    Some rows number their choices 1 to 4; all choices are shown with letters.
    """

    name = "arc"
    source = HubDataset("allenai/ai2_arc", "ARC-Challenge")

    def item(self, row: Any, location: str) -> Item:  # noqa: ANN401  (any JSON value)
        """Read a row with ``id``, ``question``, ``choices`` (``text`` and ``label``), and ``answerKey``, a label."""
        key, question, right = (text_of(row, field) for field in ("id", "question", "answerKey"))
        choices = row.get("choices")
        labels = choices.get("label") if isinstance(choices, Mapping) else None
        if not isinstance(labels, list) or right not in labels:
            raise RowError(f"has no choice with the label {right}")
        return choice_item(key, question, choices.get("text"), labels.index(right))
