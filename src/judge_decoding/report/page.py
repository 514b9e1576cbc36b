"""A comparison as one self-contained web page: no network access, and model output is never treated as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from judge_decoding.core.rounds import Cause
from judge_decoding.pages import file_page
from judge_decoding.report.terminal import COLUMNS, row
from judge_decoding.report.verdicts import MEANING, ShownRound


def comparison_page(
    methods: Mapping[str, Mapping[str, float]],
    names: Mapping[str, str],
    facts: Mapping[str, Any],
    question: str,
    rounds: Sequence[ShownRound],
) -> str:
    """Return the page: the table, its facts (problems, seed, machine, ...), and a worked example."""
    return file_page(
        "judge_decoding.report",
        "comparison",
        columns=[title.replace("\n", " ") for _, title in COLUMNS],
        rows=[(name, row(key, methods[key])) for key, name in names.items()],
        facts=facts,
        question=question,
        rounds=rounds,
        legend=[(cause.value, MEANING[cause]) for cause in Cause],
        bars=[(key, name, methods[key]["speedup"], f"{methods[key]['accuracy']:.0%}") for key, name in names.items()],
        longest=max(m["speedup"] for m in methods.values()),
    )
