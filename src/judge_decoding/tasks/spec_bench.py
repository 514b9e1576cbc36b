"""Spec-Bench: 480 questions of six kinds on which speculative decoding is measured (Xia et al., arXiv 2401.07851)."""

from __future__ import annotations

from typing import Any

from judge_decoding.tasks.base import Item, Task
from judge_decoding.tasks.conversations import MT_BENCH, conversation


class SpecBench(Task):
    """Measures acceptance and speed only. Its file is ``data/spec_bench/question.jsonl`` in hemingkx/Spec-Bench.

    Args:
        category: one of its categories, or ``mt_bench`` for MT-Bench's eight together; the default is all of them.
    """

    name = "spec_bench"
    scoring = "none"
    max_new_tokens = 1024

    def __init__(self, category: str | None = None) -> None:
        self.category = category

    def item(self, row: Any, location: str) -> Item | None:  # noqa: ANN401  (any JSON value)
        """See `conversation`."""
        found = conversation(row)
        wanted = MT_BENCH if self.category == "mt_bench" else (self.category or found.category,)
        return found if found.category in wanted else None
