"""MT-Bench: 80 conversations of two turns (Zheng et al., arXiv 2306.05685)."""

from __future__ import annotations

from typing import Any

from judge_decoding.tasks.base import HubDataset, Item, Task
from judge_decoding.tasks.conversations import MT_BENCH, conversation


class MTBench(Task):
    """Answers are graded by a model (`grading`), not checked.

    From a Spec-Bench file, which contains MT-Bench, only the questions of MT-Bench's categories are used.
    """

    name = "mt_bench"
    source = HubDataset("HuggingFaceH4/mt_bench_prompts", split="train")
    scoring = "grade"
    max_new_tokens = 1024

    def item(self, row: Any, location: str) -> Item | None:  # noqa: ANN401  (any JSON value)
        """See `conversation`."""
        found = conversation(row)
        return found if found.category in MT_BENCH else None
