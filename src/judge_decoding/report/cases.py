"""Labelled answers as one self-contained web page, with each word or token coloured by its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from judge_decoding.data.agreement import Spans
from judge_decoding.data.cases import Case
from judge_decoding.data.verdicts import Verdict, verdicts, words
from judge_decoding.pages import file_page

_CLASSES = {
    Verdict.CORRECT: "correct",
    Verdict.WRONG: "wrong",
    Verdict.AFTER: "after",
    Verdict.UNJUDGED: "unjudged",
}


def cases_page(title: str, cases: Sequence[Case], facts: Mapping[str, Any], spans: Spans | None = None) -> str:
    """Return the page. ``facts`` are shown at its top; ``spans`` splits answers into tokens, by default into words."""
    shown = []
    for case in cases:
        cuts = words(case.answer) if spans is None else spans(case)
        pieces = [
            (case.answer[start:end], _CLASSES[verdict])
            for (start, end), verdict in zip(cuts, verdicts(case, cuts), strict=True)
        ]
        wrong_end = any(start == end == len(case.answer) for start, end in case.errors)
        kind = "wrong" if case.errors else "right" if case.located else "unlocated"
        about = [("source", case.source), ("writer", case.writer), ("annotator", case.annotator)]
        shown.append((case, pieces, wrong_end, kind, [(name, value) for name, value in about if value]))
    return file_page(
        "judge_decoding.report",
        "cases",
        title=title,
        facts=facts,
        legend=[(_CLASSES[verdict], verdict.value) for verdict in Verdict],
        cases=shown,
    )
