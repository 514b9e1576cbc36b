"""What is in one or several TokenCourt files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from judge_decoding.data.agreement import agreement
from judge_decoding.data.cases import Case
from judge_decoding.data.spans import Span
from judge_decoding.data.verdicts import Verdict, verdicts, words

Spans = Callable[[Case], list[Span]]
"""The character spans of an answer's words or tokens."""


def same_question(question: str) -> str:
    """What two questions share that differ in case and space only."""
    return " ".join(question.casefold().split())


def summary(cases: Sequence[Case], spans: Spans | None = None) -> dict[str, Any]:
    """Counts of cases, verdicts and sources; ``spans`` cuts answers into tokens, by default into words."""
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


def leaks(files: Mapping[str, Sequence[Case]]) -> dict[str, list[str]]:
    """Questions that are in more than one of ``files``, case and space apart: each with the names of the files."""
    places: dict[str, list[str]] = {}
    shown: dict[str, str] = {}
    for name, cases in files.items():
        for key in {same_question(case.question): case.question for case in cases}.items():
            shown.setdefault(*key)
            places.setdefault(key[0], []).append(name)
    return {shown[key]: names for key, names in places.items() if len(names) > 1}
