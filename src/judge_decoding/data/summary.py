"""Summaries of TokenCourt files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from judge_decoding.core.spans import Span
from judge_decoding.data.agreement import agreement
from judge_decoding.data.cases import Case
from judge_decoding.data.leaks import same_question
from judge_decoding.data.verdicts import Verdict, verdicts, words

Spans = Callable[[Case], list[Span]]
"""Returns the character spans of an answer's words or tokens."""


def summary(cases: Sequence[Case], spans: Spans | None = None) -> dict[str, Any]:
    """Count cases, verdicts and sources; ``spans`` splits answers into tokens, by default into words."""
    units: Counter[Verdict] = Counter()
    for case in cases:
        units.update(verdicts(case, words(case.answer) if spans is None else spans(case)))
    seconds = sorted(case.seconds for case in cases if case.seconds is not None)
    unit = "words" if spans is None else "tokens"
    return {
        "cases": len(cases),
        "questions": len({same_question(case.question) for case in cases}),
        "right": sum(case.located and not case.errors for case in cases),
        "wrong": sum(bool(case.errors) for case in cases),
        "wrong, not located": sum(not case.located for case in cases),
        unit: {verdict.value: units[verdict] for verdict in Verdict},
        "sources": dict(Counter(case.source or "unknown" for case in cases).most_common()),
        "writers": dict(Counter(case.writer or "unknown" for case in cases).most_common()),
        "annotators": dict(Counter(case.annotator for case in cases if case.annotator).most_common()),
        "median seconds a label": seconds[len(seconds) // 2] if seconds else None,
        "agreement": agreement(cases),
    }
