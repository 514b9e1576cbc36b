"""Summaries of TokenCourt files, and the agreement between annotators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations
from typing import Any

from judge_decoding.core.spans import Span
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


def cohens_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Return Cohen's kappa: agreement beyond chance, 1 for full agreement, 0 for chance level.

    ``(po - pe) / (1 - pe)``, where po is the share of equal labels and pe the share expected if both label at random
    with their own frequencies. None if undefined: there are no labels, or both annotators used only one, equal label.
    Source: Cohen (1960), "A coefficient of agreement for nominal scales".

    Raises:
        ValueError: the sequences have different lengths.
    """
    pairs = list(zip(first, second, strict=True))
    if not pairs:
        return None
    observed = sum(a == b for a, b in pairs) / len(pairs)
    theirs = Counter(second)
    expected = sum(count * theirs[label] for label, count in Counter(first).items()) / len(pairs) ** 2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def agreement(cases: Sequence[Case]) -> list[dict[str, object]]:
    """Return, for each pair of annotators, the number of shared answers and kappa over answers and over words.

    The label of an answer is "has an error", that of a word "is inside an error"; ``same first error`` is the share of
    answers that both marked wrong with the same first wrong word.
    """
    labels: dict[str, dict[tuple[str, str], Case]] = {}
    for case in cases:
        if case.annotator and case.located:
            labels.setdefault(case.annotator, {})[case.question, case.answer] = case
    rows: list[dict[str, object]] = []
    for one, other in combinations(sorted(labels), 2):
        shared = sorted(labels[one].keys() & labels[other].keys())
        if not shared:
            continue
        pairs = [(labels[one][key], labels[other][key]) for key in shared]
        marks = [[_wrong_words(case) for case in side] for side in zip(*pairs, strict=True)]
        both = [(a.index(True), b.index(True)) for a, b in zip(*marks, strict=True) if any(a) and any(b)]
        rows.append(
            {
                "annotators": [one, other],
                "answers": len(shared),
                "kappa over answers": cohens_kappa(
                    [bool(a.errors) for a, _ in pairs], [bool(b.errors) for _, b in pairs]
                ),
                "kappa over words": cohens_kappa(
                    [mark for row in marks[0] for mark in row], [mark for row in marks[1] for mark in row]
                ),
                "same first error": sum(a == b for a, b in both) / len(both) if both else None,
            }
        )
    return rows


def _wrong_words(case: Case) -> list[bool]:
    spans = [*words(case.answer), (len(case.answer), len(case.answer) + 1)]
    return [verdict is Verdict.WRONG for verdict in verdicts(case, spans)]
