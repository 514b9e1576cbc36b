"""The verdict of each word or token of a case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from judge_decoding.data.cases import Case
from judge_decoding.data.spans import Span, body, touches

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


def verdicts(case: Case, spans: Sequence[Span]) -> list[Verdict]:
    """The verdict of each of ``spans`` of the answer; an end that is wrong is a span ``[n, n + 1)`` behind it."""
    first = min((start for start, _ in case.errors), default=None)
    found = []
    for start, end in spans:
        if not case.located or (case.judged is not None and not touches(start, end, case.judged)):
            found.append(Verdict.UNJUDGED)
        elif touches(body(case.answer, start, end), end, case.errors):  # a word is not wrong by the space before it
            found.append(Verdict.WRONG)
        else:
            found.append(Verdict.AFTER if first is not None and start > first else Verdict.CORRECT)
    return found
