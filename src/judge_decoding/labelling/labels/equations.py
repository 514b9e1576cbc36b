r"""The equations of a text, and which of them are false.

An equation is called false only if no sensible reading makes it true: results may be rounded either way, a percentage
may stand for a hundred times its value, ``5 + 3 = 8 * 2 = 16`` is a running calculation. Equations that are unreadable,
have unknowns or mix units such as hours and minutes are skipped. So a right answer is hardly ever called wrong, but
some false equations are missed.

GSM8K's annotations, ``<<3*4=12>>12``, are equations of their own, and the number after one must be its result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

from judge_decoding.labelling.labels.expressions import Expression, Lexeme, LexemeKind, Parser, UnreadableError, lexemes

_ANNOTATION = re.compile(r"<<(.*?)(>>|$)", re.DOTALL)

_LONGEST = 200
"""The most lexemes of one side that are read."""

# Words before a number that make it part of a longer expression that is not read: "half of 60 + 10".
_UNSURE = frozenset(
    "of than half twice double triple thrice third thirds quarter quarters fourth fifth dozen by at hundred thousand "
    "million billion".split()
)
# Units of one dimension per row; an equation with two units of a row may be a conversion.
_DIMENSIONS = (
    "second sec minute min hour hr day week month year decade century",
    "dollar cent penny pennies dime nickel quarter buck",
    "inch inches foot feet yard mile cm mm km meter metre centimeter kilometer millimeter",
    "gram kg kilogram ounce oz pound lb ton",
    "ml liter litre milliliter cup pint quart gallon teaspoon tablespoon",
)
_DIMENSION = {unit: i for i, row in enumerate(_DIMENSIONS) for unit in row.split()}
# Words that join two numbers, as in "24 eggs in 1 tray".
_JOINING = frozenset("in at of per each for every and".split())
# Words that represent a number themselves, or compare two.
_SCALES = frozenset(
    "more less fewer than half halves third thirds quarter quarters dozen dozens pair pairs score hundred hundreds "
    "thousand thousands million millions billion billions percent k m remainder r".split()
)


@dataclass(frozen=True, slots=True)
class Equation:
    """One equals sign with both its sides.

    Attributes:
        start: where its left side begins in the text.
        span: the span of its result, the right side.
        true: whether some sensible reading of it is true.
    """

    start: int
    span: tuple[int, int]
    true: bool


def equations(text: str, *, ended: bool = True) -> list[Equation]:
    """The readable equations of ``text``, in the order of their results.

    ``ended`` means that the text is complete; if not, a number at its very end may be cut off and is not judged.
    """
    found: list[Equation] = []
    # Blanks replace annotations, so that all positions stay and the equation around them can be read.
    plain = _ANNOTATION.sub(lambda match: " " * len(match.group()), text)
    for match in _ANNOTATION.finditer(text):
        if match.group(2):
            found += _in_line(list(lexemes(text, match.start(1), match.end(1))))
            found += _result_again(text, match.start(1), match.end(1), match.end())
    found += _in_line(list(lexemes(plain)))
    if not ended:
        found = [equation for equation in found if equation.span[1] < len(text)]
    return sorted(found, key=lambda equation: (equation.span, equation.start))


def _in_line(row: Sequence[Lexeme]) -> Iterator[Equation]:
    for at, lexeme in enumerate(row):
        if lexeme.kind is not LexemeKind.EQUALS:
            continue
        begin = at
        while begin > at - _LONGEST and begin and row[begin - 1].kind not in (LexemeKind.EQUALS, LexemeKind.STOP):
            begin -= 1
        end = at + 1
        while end < min(len(row), at + _LONGEST) and row[end].kind not in (LexemeKind.EQUALS, LexemeKind.STOP):
            end += 1
        try:
            right = Parser(row, at + 1, end).parse()
        except UnreadableError:
            continue
        # An operator after it connects it to something unreadable: "= 3 * x".
        following = row[right.end] if right.end < end else None
        joins = (LexemeKind.OPERATOR, LexemeKind.FRACTION, LexemeKind.OPEN)
        if following is not None and following.kind in joins and following.text != "-":
            continue
        lefts = list(_left_sides(row, begin, at))
        if not lefts or not any(left.operators or right.operators for _, left in lefts):
            continue
        about = lexeme.text in ("≈", "\\approx")
        true = any(_holds(left, right, about) for _, left in lefts)
        last = right.end - 1
        # Units are not part of the error.
        while last > at + 1 and row[last].kind not in (LexemeKind.NUMBER, LexemeKind.CLOSE):
            last -= 1
        yield Equation(row[lefts[0][0]].start, (row[at + 1].start, row[last].end), true)


def _left_sides(row: Sequence[Lexeme], begin: int, stop: int) -> Iterator[tuple[int, Expression]]:
    """The longest expression that ends at ``stop``, with its start, and shorter alternatives that begin at a dash."""
    found = False
    for start in range(begin, stop):
        before = row[start - 1] if start > begin else None
        if row[start].kind is LexemeKind.WORD or not (
            _may_start(row, begin, start) if not found else _dash(row, begin, start)
        ):
            continue
        try:
            side = Parser(row, start, stop).parse()
        except UnreadableError:
            continue
        if side.end == stop:
            if not found and before is not None and _unsure(row, begin, start):
                return
            found = True
            yield start, side


def _may_start(row: Sequence[Lexeme], begin: int, start: int) -> bool:
    before = row[start - 1] if start > begin else None
    if row[start].kind is LexemeKind.OPERATOR:
        return before is None or before.kind in (LexemeKind.WORD, LexemeKind.OPEN)
    return before is None or before.kind in (LexemeKind.WORD, LexemeKind.OPEN, LexemeKind.NUMBER, LexemeKind.CLOSE)


def _dash(row: Sequence[Lexeme], begin: int, start: int) -> bool:
    """Whether a minus here, or just before, may be a mere dash: "- 20 + 5" in a list, "Day 1 - 20 + 5"."""
    sign = start if row[start].kind is LexemeKind.OPERATOR else start - 1
    if sign < begin or row[sign].text != "-" or row[sign].kind is not LexemeKind.OPERATOR:
        return False
    return sign == begin or row[sign - 1].kind is LexemeKind.WORD or (row[sign].spaced and row[sign + 1].spaced)


def _unsure(row: Sequence[Lexeme], begin: int, start: int) -> bool:
    """Whether an expression that begins here belongs to something unread before it."""
    words = []
    at = start - 1
    while at >= begin and row[at].kind is LexemeKind.WORD:
        words.append(row[at].text.lower())
        at -= 1
    before = row[at].kind if at >= begin else None
    if not words:
        return False
    if words[0] in _UNSURE or before is LexemeKind.OPERATOR:
        return True
    if before in (LexemeKind.NUMBER, LexemeKind.CLOSE) and not _JOINING.isdisjoint(words):
        return True
    # A single letter is an unknown ("3 x"), unless it is an article or stands alone at the beginning ("a) 5").
    return len(words[0]) == 1 and words[0] not in "ai" and before is not None


def _holds(left: Expression, right: Expression, about: bool) -> bool:
    values = [left.value]
    if left.percent or right.percent:
        values += [left.value * 100, left.value / 100]
    if any(_same(value, right, about) for value in values):
        return True
    if right.operators and _near(left.value, right.first, 0):  # a running calculation
        return True
    if not left.operators and _same(right.value, left, about):  # "7 = 20 / 3"
        return True
    units = left.units | right.units
    if units & _SCALES:
        return True
    known = {_singular(unit) for unit in units}
    dimensions = [_DIMENSION[unit] for unit in known if unit in _DIMENSION]
    return len(dimensions) > len(set(dimensions))


def _same(value: Fraction, stated: Expression, about: bool) -> bool:
    if stated.operators:
        return abs(value - stated.value) <= max(abs(value), Fraction(1)) / 10**6
    if about and abs(value - stated.value) <= abs(value) / 20:
        return True
    return _near(value, stated.value, stated.decimals)


def _near(value: Fraction, stated: Fraction, decimals: int) -> bool:
    """Whether ``stated`` is ``value``, rounded up or down to ``decimals`` places if it has more."""
    gap = abs(value - stated)
    # Calculators use binary numbers: they give 0.09999999999999998 for 0.5 - 0.4.
    return gap < Fraction(1, 10**decimals) or gap <= abs(value) / 10**9


def _singular(unit: str) -> str:
    return unit if unit in _DIMENSION else unit.removesuffix("s")


def _result_again(text: str, start: int, end: int, behind: int) -> Iterator[Equation]:
    """The number right after an annotation, which must be its result."""
    inside = list(lexemes(text, start, end))
    line_end = text.find("\n", behind)
    after = list(islice(lexemes(text, behind, len(text) if line_end < 0 else line_end), 2))
    equals = [i for i, lexeme in enumerate(inside) if lexeme.kind is LexemeKind.EQUALS]
    if not equals or not after:
        return
    last = 2 if after[0].kind is LexemeKind.OPERATOR and len(after) == 2 else 1
    try:
        result = Parser(inside, equals[-1] + 1, len(inside)).parse()
        again = Parser(after, 0, last).parse()
    except UnreadableError:
        return
    if result.operators or again.operators:
        return
    yield Equation(start, (after[0].start, after[last - 1].end), _holds(result, again, False))
