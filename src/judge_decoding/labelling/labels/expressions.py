r"""Read and evaluate the sides of an equation: numbers, operators, brackets, and units in between.

A text becomes lexemes, and these are parsed. The grammar, by descending precedence::

    value   = number [number "/" number] | number "/" number | "(" sum ")" | "-" value | \frac "(" sum ")" "(" sum ")"
    power   = value unit* ["^" power]
    product = power (("*" | "/" | "x" | "of" after a percentage) power)*
    sum     = product (("+" | "-") product)*

The second form of a value needs a "/" without spaces, after a "/" with spaces. Units are words. Values are exact
fractions; nothing is passed to Python's own evaluator.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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


_BITS = 4096
"""The longest value, in bits, so that a tower of powers costs nothing."""
_DEPTH = 40
"""The deepest nesting of brackets."""
_LONGEST_NUMBER = 1000
"""The most characters of a number that is read; Python refuses more than 4,300."""


class UnreadableError(Exception):
    """There is no expression here, or its value cannot be known."""


@dataclass(slots=True)
class Expression:
    """A side of an equation.

    Attributes:
        value: its value.
        end: index of the first lexeme after it.
        first: value of its first operand, with which a running calculation (``5 + 3 = 8 * 2 = 16``) begins.
        operators: number of its operators; 0 for a bare number.
        decimals: number of decimals of the bare number.
        percent: whether it contains a percentage.
        units: its unit words.
    """

    value: Fraction
    end: int
    first: Fraction
    operators: int = 0
    decimals: int = 0
    percent: bool = False
    units: set[str] = field(default_factory=set)


class Parser:
    """Reads one expression from ``lexemes``, beginning at ``start``."""

    def __init__(self, lexemes: Sequence[Lexeme], start: int, stop: int) -> None:
        self._lexemes, self._at, self._stop = lexemes, start, stop
        self._operators = self._decimals = self._depth = 0
        self._percent = self._quotient = False
        self._units: set[str] = set()
        self._first: Fraction | None = None

    def parse(self) -> Expression:
        """The longest expression that begins here.

        Raises:
            UnreadableError: there is no expression here, or its value cannot be known.
        """
        value = self._sum()
        first = value if self._first is None else self._first
        return Expression(value, self._at, first, self._operators, self._decimals, self._percent, self._units)

    def _peek(self, ahead: int = 0) -> Lexeme | None:
        at = self._at + ahead
        return self._lexemes[at] if at < self._stop else None

    def _operator(self, wanted: str, ahead: int = 0) -> bool:
        lexeme = self._peek(ahead)
        return lexeme is not None and lexeme.kind is LexemeKind.OPERATOR and lexeme.text in wanted

    def _starts_value(self, ahead: int = 0) -> bool:
        lexeme = self._peek(ahead)
        if lexeme is not None and lexeme.kind is LexemeKind.OPERATOR and lexeme.text == "-":
            lexeme = self._peek(ahead + 1)
        return lexeme is not None and lexeme.kind in (LexemeKind.NUMBER, LexemeKind.OPEN, LexemeKind.FRACTION)

    def _sum(self) -> Fraction:
        value = self._product()
        while self._operator("+-") and self._starts_value(1):
            sign = 1 if self._operator("+") else -1
            self._step(value)
            value = _checked(value + sign * self._product())
        return value

    def _product(self) -> Fraction:
        value = self._power()
        while (operator := self._multiplication()) is not None:
            if operator:  # there is no operator in "2(3 + 4)"
                self._step(value)
            else:
                self._operators += 1
            right = self._power()
            if operator == "/":
                if not right:
                    raise UnreadableError
                value = _checked(value / right)
            else:
                value = _checked(value * right)
        return value

    def _multiplication(self) -> str | None:
        lexeme = self._peek()
        if lexeme is None:
            return None
        if self._operator("*/") and self._starts_value(1):
            return lexeme.text
        # No minus may follow, as 5x - 5 has an unknown.
        if lexeme.kind is LexemeKind.WORD and self._starts_value(1) and not self._operator("-", 1):
            if lexeme.text in "xX":
                return "*"
            if lexeme.text == "of" and (self._percent or self._quotient):
                return "*"
        if lexeme.kind is LexemeKind.OPEN and self._lexemes[self._at - 1].kind in (LexemeKind.NUMBER, LexemeKind.CLOSE):
            return ""
        return None

    def _step(self, value: Fraction) -> None:
        if self._first is None:
            self._first = value
        self._quotient = self._operator("/")
        self._operators += 1
        self._at += 1

    def _power(self) -> Fraction:
        value = self._value()
        self._skip_units()
        if self._operator("^"):
            self._step(value)
            exponent = self._power()
            if exponent.denominator != 1 or abs(exponent) > 64 or (not value and exponent < 0):
                raise UnreadableError
            return _checked(value ** int(exponent))
        return value

    def _value(self) -> Fraction:
        lexeme = self._peek()
        self._depth += 1
        if lexeme is None or self._depth > _DEPTH:
            raise UnreadableError
        try:
            return self._value_of(lexeme)
        finally:
            self._depth -= 1

    def _value_of(self, lexeme: Lexeme) -> Fraction:
        self._at += 1
        if lexeme.kind is LexemeKind.OPERATOR and lexeme.text == "-":
            return -self._value()
        if lexeme.kind is LexemeKind.NUMBER:
            if lexeme.end - lexeme.start > _LONGEST_NUMBER:
                raise UnreadableError
            value, self._decimals, percent = number(lexeme.text)
            self._percent |= percent
            if lexeme.text.lstrip("\\")[0] in "$€£¥":
                self._units.add("dollar")
            return _checked((value + self._mixed(value)) / self._tight_divisor())
        if lexeme.kind is LexemeKind.OPEN:
            return self._closed(lexeme)
        if lexeme.kind is LexemeKind.FRACTION:
            parts = []
            for _ in range(2):
                opening = self._peek()
                if opening is None or opening.kind is not LexemeKind.OPEN:
                    raise UnreadableError
                self._at += 1
                parts.append(self._closed(opening))
            if not parts[1]:
                raise UnreadableError
            self._operators += 1
            return _checked(parts[0] / parts[1])
        raise UnreadableError

    def _closed(self, opening: Lexeme) -> Fraction:
        """The sum in brackets whose opening bracket has been read."""
        value = self._sum()
        closing = self._peek()
        pairs = {"(": ")", "[": "]", "{": "}"}
        if closing is None or closing.kind is not LexemeKind.CLOSE or closing.text[-1] != pairs[opening.text[-1]]:
            raise UnreadableError
        self._at += 1
        return value

    def _mixed(self, whole: Fraction) -> Fraction:
        """The fraction of a mixed number such as ``2 1/2``, 0 if none follows."""
        top, bottom = self._peek(), self._peek(2)
        if (
            whole.denominator != 1
            or top is None
            or bottom is None
            or top.kind is not LexemeKind.NUMBER
            or bottom.kind is not LexemeKind.NUMBER
            or not self._operator("/", 1)
        ):
            return Fraction(0)
        if max(top.end - top.start, bottom.end - bottom.start) > _LONGEST_NUMBER:
            return Fraction(0)
        above, below = number(top.text)[0], number(bottom.text)[0]
        if not 0 < above < below:
            return Fraction(0)
        self._at += 3
        self._operators += 1
        return above / below

    def _tight_divisor(self) -> Fraction:
        """The number that first divides the number just read, as in ``3 / 1/2``; 1 if there is none."""
        before = self._lexemes[self._at - 2] if self._at > 1 else None
        over, bottom = self._peek(), self._peek(1)
        if (
            before is None
            or before.text != "/"
            or not before.spaced
            or over is None
            or over.text != "/"
            or over.spaced
            or bottom is None
            or bottom.kind is not LexemeKind.NUMBER
            or bottom.spaced
            or bottom.end - bottom.start > _LONGEST_NUMBER
        ):
            return Fraction(1)
        value = number(bottom.text)[0]
        if not value:
            raise UnreadableError
        self._at += 2
        return value

    def _skip_units(self) -> None:
        while (lexeme := self._peek()) is not None:
            following = self._peek(1)
            if lexeme.kind is LexemeKind.WORD:
                if self._multiplication() is not None:
                    return
                word = lexeme.text.lower()
                if len(word) == 1 and word != "a":  # an unknown of an equation, not a unit
                    raise UnreadableError
                self._units.add(word)
                self._at += 1
            elif (
                following is not None
                and following.kind is LexemeKind.WORD
                and following.text not in "xX"
                and (self._operator("/") or (self._operator("-") and not lexeme.spaced and not following.spaced))
            ):  # "5 miles/hour", "30-minute"
                self._at += 1
            elif lexeme.kind is LexemeKind.OPEN and self._is_remark():
                continue
            else:
                return

    def _is_remark(self) -> bool:
        """Skip words in brackets, as in ``4 (the children) * 3``."""
        ahead = 1
        while (lexeme := self._peek(ahead)) is not None and lexeme.kind is LexemeKind.WORD:
            ahead += 1
        if lexeme is None or lexeme.kind is not LexemeKind.CLOSE or ahead == 1:
            return False
        self._at += ahead + 1
        return True


def _checked(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > _BITS or value.denominator.bit_length() > _BITS:
        raise UnreadableError
    return value
