"""The verdict of each word or token of a case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from judge_decoding.core.spans import Span, body, touches
from judge_decoding.data.cases import Case

_WORD = re.compile(r"\s*\S+|\s+$")


class Verdict(Enum):
    """The label of a word or token."""

    CORRECT = "correct"
    WRONG = "wrong"
    AFTER = "after the error"
    UNJUDGED = "not judged"


def words(text: str) -> list[Span]:
    """Return the character spans of the words of ``text``, each with the space before it; joined, they are the text."""
    return [match.span() for match in _WORD.finditer(text)]


def verdicts(case: Case, spans: Sequence[Span]) -> list[Verdict]:
    """Return the verdict of each of ``spans`` of the answer; a wrong end is a span ``[n, n + 1)`` after it."""
    first = min((start for start, _ in case.errors), default=None)
    found = []
    for start, end in spans:
        if not case.located or (case.judged is not None and not touches(start, end, case.judged)):
            found.append(Verdict.UNJUDGED)
        elif touches(body(case.answer, start, end), end, case.errors):  # errors in the space before a word do not count
            found.append(Verdict.WRONG)
        else:
            found.append(Verdict.AFTER if first is not None and start > first else Verdict.CORRECT)
    return found
