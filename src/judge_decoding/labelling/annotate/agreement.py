"""Measure how far annotators agree with each other and with themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from judge_decoding.core.spans import Span
from judge_decoding.data.agreement import cohens_kappa
from judge_decoding.labelling.annotate.pieces import pieces_of
from judge_decoding.labelling.annotate.storage import Event, standing

Errors = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two sets of decisions on the same cases agree.

    Attributes:
        first, second: the annotators.
        cases: how many cases both decided.
        verdict_kappa: Cohen's kappa of right or wrong, by case.
        same_verdict: cases on which both verdicts (right or wrong) are equal.
        token_kappa: Cohen's kappa of the pieces (words or tokens): correct before the first error, wrong from it on.
        both_wrong: cases that both found wrong.
        same_place: the number of those cases in which both marked the same first piece.
    """

    first: str
    second: str
    cases: int
    verdict_kappa: float | None
    same_verdict: int
    token_kappa: float | None
    both_wrong: int
    same_place: int


def compare(
    first: Mapping[str, Errors],
    second: Mapping[str, Errors],
    pieces: Mapping[str, Sequence[Span]],
    names: tuple[str, str],
) -> Agreement:
    """Compare the errors found in the cases that both decided; ``pieces`` maps every case to its pieces."""
    shared = [case for case in first if case in second and case in pieces]
    mine, yours = ([first_wrong(side[case], pieces[case]) for case in shared] for side in (first, second))
    lengths = [len(pieces[case]) + 1 for case in shared]
    both = [(a, b) for a, b in zip(mine, yours, strict=True) if a is not None and b is not None]
    return Agreement(
        *names,
        cases=len(shared),
        verdict_kappa=cohens_kappa([a is None for a in mine], [b is None for b in yours]),
        same_verdict=sum((a is None) == (b is None) for a, b in zip(mine, yours, strict=True)),
        token_kappa=cohens_kappa(_tokens(mine, lengths), _tokens(yours, lengths)),
        both_wrong=len(both),
        same_place=sum(a == b for a, b in both),
    )


def first_wrong(errors: Errors, pieces: Sequence[Span]) -> int | None:
    """The index of the first wrong piece, ``len(pieces)`` for the end of the answer, None for a right answer."""
    return pieces_of(pieces, min(errors))[0] if errors else None


def _tokens(places: Sequence[int | None], lengths: Sequence[int]) -> list[bool]:
    """For each piece, whether it is before the first error; the end of the answer is the last piece."""
    return [
        place is None or number < place
        for place, length in zip(places, lengths, strict=True)
        for number in range(length)
    ]


def verdicts(events: Sequence[Event], *, repeat: bool = False) -> dict[str, Errors]:
    """The errors an annotator found in each case, the first time or, with ``repeat``, the second time."""
    return {e.case: e.errors for e in standing(events)[0] if e.action == "label" and e.repeat == repeat}


def self_agreement(name: str, events: Sequence[Event], pieces: Mapping[str, Sequence[Span]]) -> Agreement:
    """The agreement of an annotator with their own earlier decisions on the repeated cases."""
    return compare(verdicts(events), verdicts(events, repeat=True), pieces, (name, name))


def pairs(decided: Mapping[str, Mapping[str, Errors]], pieces: Mapping[str, Sequence[Span]]) -> list[Agreement]:
    """Compare every two annotators; ``decided`` contains the verdicts of each."""
    return [compare(decided[a], decided[b], pieces, (a, b)) for a, b in combinations(sorted(decided), 2)]


def differing(decided: Mapping[str, Mapping[str, Errors]], pieces: Mapping[str, Sequence[Span]]) -> list[str]:
    """The cases in which annotators differ in the first wrong piece, right-or-wrong differences first."""
    places = {
        case: [first_wrong(side[case], pieces[case]) for side in decided.values() if case in side] for case in pieces
    }
    split = [case for case, found in places.items() if len(set(found)) > 1]
    return sorted(split, key=lambda case: None not in places[case])
