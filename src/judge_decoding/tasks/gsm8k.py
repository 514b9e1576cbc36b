"""GSM8K: word problems of grade-school mathematics (Cobbe et al., arXiv 2110.14168)."""

from __future__ import annotations

from typing import Any

from judge_decoding.tasks.base import HubDataset, Item, Task, text_of
from judge_decoding.tasks.checkers import number


class GSM8K(Task):
    """The final number of the answer must equal that of the reference."""

    name = "gsm8k"
    source = HubDataset("openai/gsm8k", "main")

    def item(self, row: Any, location: str) -> Item:  # noqa: ANN401  (any JSON value)
        """Read a row with ``question`` and ``answer``."""
        return Item(location, (text_of(row, "question"),), text_of(row, "answer"))

    def check(self, item: Item, answer: str) -> bool | None:
        """Check the final number."""
        return number(item.turns[-1], answer, item.reference)
