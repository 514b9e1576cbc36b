"""A text as numbers, operators, equals signs and words, in which equations are searched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction


class LexemeKind(Enum):
    """The kind of a lexeme."""

    NUMBER = "number"
    OPERATOR = "operator"
    OPEN = "("
    CLOSE = ")"
    EQUALS = "="
    FRACTION = "fraction"
    WORD = "word"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Lexeme:
    """A piece of a text.

    Attributes:
        kind: its kind.
        text: its spelling; for an operator, the one of ``+ - * / ^`` that it means.
        start: where it begins in the text.
        end: where it ends.
        spaced: whether a space precedes it.
    """

    kind: LexemeKind
    text: str
    start: int
    end: int
    spaced: bool = False


# Thousands are separated by commas or spaces, with three digits after each.
_DIGITS = r"(?:\d{1,3}(?:[, \u00a0\u202f]\d{3})+(?!\d)|\d+)"
_PATTERN = re.compile(
    rf"""
      (?P<space>\s+|\\[,;:! ]|\*\*(?=[A-Z]))
    | (?P<clock>\d{{1,2}}:\d\d(?!\d))
    | (?P<ordinal>\d+(?:st|nd|rd|th)\b)
    | (?P<number>(?:\\?[$€£¥]\s?)?(?:{_DIGITS}(?:\.\d+)?|\.\d+)(?:\s?\\?%)?)
    | (?P<other>==+|!=|<=|>=|≠|≤|≥|=>|->)
    | (?P<equals>=|≈|\bequals\b|\\approx\b)
    | (?P<fraction>\\[dt]?frac\b)
    | (?P<power>\*\*|\^)
    | (?P<plus>\+|\bplus\b)
    | (?P<minus>[-\u2212\u2013]|\bminus\b)
    | (?P<times>[*\u00d7\u00b7\u22c5]|\\times\b|\\cdot\b|\btimes\b|\bmultiplied\ by\b)
    | (?P<over>[/÷]|\\div\b|\bdivided\ by\b)
    | (?P<open>[(\[{{]|\\left[(\[])
    | (?P<close>[)\]}}]|\\right[)\]])
    | (?P<word>\\?[^\W\d_]+(?:['\u2019-][^\W\d_]+)*)
    | (?P<stop>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_OPERATORS = {"power": "^", "plus": "+", "minus": "-", "times": "*", "over": "/"}
_KINDS = {
    "number": LexemeKind.NUMBER,
    "equals": LexemeKind.EQUALS,
    "fraction": LexemeKind.FRACTION,
    "open": LexemeKind.OPEN,
    "close": LexemeKind.CLOSE,
    "word": LexemeKind.WORD,
    "ordinal": LexemeKind.WORD,
}


def lexemes(text: str, start: int = 0, end: int | None = None) -> Iterator[Lexeme]:
    """The lexemes of ``text[start:end]``. A line end stops an equation; other whitespace only sets ``spaced``."""
    spaced = False
    for match in _PATTERN.finditer(text, start, len(text) if end is None else end):
        name, written = str(match.lastgroup), match.group()
        if name == "space" and "\n" not in written:
            spaced = True
            continue
        kind = LexemeKind.OPERATOR if name in _OPERATORS else _KINDS.get(name, LexemeKind.STOP)
        yield Lexeme(kind, _OPERATORS.get(name, written), match.start(), match.end(), spaced)
        spaced = False


def number(text: str) -> tuple[Fraction, int, bool]:
    """The value of a written number, its number of decimals, and whether it is a percentage."""
    percent = text.endswith("%")
    digits = re.sub(r"[^\d.]", "", text)
    decimals = len(digits.partition(".")[2])
    value = Fraction(int(digits.replace(".", "") or "0"), 10**decimals)
    return (value / 100, decimals + 2, True) if percent else (value, decimals, False)
