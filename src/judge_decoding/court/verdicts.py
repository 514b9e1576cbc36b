"""The verdict of each word or token of a case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from judge_decoding.court.cases import Case

Span = tuple[int, int]

_WORD = re.compile(r"\s*\S+|\s+$")


class Verdict(Enum):
    """What a label says of a word or token."""

    CORRECT = "correct"
    WRONG = "wrong"
    AFTER = "after the error"
    UNJUDGED = "not judged"


def words(text: str) -> list[Span]:
    """Character spans of the words of ``text``, each with the space before it; together they are the text."""
    return [match.span() for match in _WORD.finditer(text)]


def touches(start: int, end: int, spans: Sequence[Span]) -> bool:
    """Whether ``[start, end)`` touches one of ``spans``; an empty span is where the text should not have ended."""
    return any(start < max(stop, begin + 1) and end > begin for begin, stop in spans)


def verdicts(case: Case, spans: Sequence[Span]) -> list[Verdict]:
    """The verdict of each of ``spans`` of the answer; an end that is wrong is a span ``[n, n + 1)`` behind it."""
    first = min((start for start, _ in case.errors), default=None)
    found = []
    for start, end in spans:
        if not case.located or (case.judged is not None and not touches(start, end, case.judged)):
            found.append(Verdict.UNJUDGED)
        elif touches(_body(case.answer, start, end), end, case.errors):
            found.append(Verdict.WRONG)
        else:
            found.append(Verdict.AFTER if first is not None and start > first else Verdict.CORRECT)
    return found


def _body(text: str, start: int, end: int) -> int:
    """Where what is not space begins, so that an error that ends before a word does not touch it by its space."""
    space = len(text[start:end]) - len(text[start:end].lstrip())
    return start + space if start + space < end else start
