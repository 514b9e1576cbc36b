"""Agreement between annotators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations

from judge_decoding.data.cases import Case
from judge_decoding.data.verdicts import Verdict, verdicts, words


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
