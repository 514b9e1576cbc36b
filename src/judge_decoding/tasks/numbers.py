"""Numbers as people and models write them: their values, and when two of them are equal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

DIGITS = 60
"""A number with more digits does not count; it comes from a model that repeats itself without end."""

_BIG = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "lakh": 5, "crore": 7}
_BIG |= {"millones": 6, "millionen": 6, "万": 4, "亿": 8, "k": 3, "m": 6, "mn": 6, "b": 9, "bn": 9}

_BODY = r"""
    (?<!\d,)[1-9]\d?(?:,\d\d(?=,)){1,8}+,\d{3}(?!,?\d)(?:\.\d+)?   # 1,00,000 as in India
  | (?<!\d,)[1-9]\d{0,2}(?:,\d{3}){1,12}+(?!,?\d)(?:\.\d++)?     # 1,234,567.8
  | [1-9]\d{0,2}(?:\.\d{3}){1,12}+,\d++(?![,.]?\d)               # 1.234.567,8
  | [1-9]\d{0,2}(?:\.\d{3}){2,12}+(?![,.]?\d)                    # 1.234.567
  | [1-9]\d{0,2}(?:[ ]\d{3}){1,12}+(?!\d|/\d)(?:[.,]\d++)?       # 1 234 567,8
  | [1-9]\d{0,2}(?:'\d{3}){1,12}+(?!\d)(?:[.,]\d++)?             # 1'234'567.8
  | [1-9]\d{0,2}(?:_\d{3}){1,12}+(?!\d)(?:\.\d++)?               # 1_234_567.8
  | (?<!\d,)\d++,\d++(?![,.]?\d)                                      # 7,5: a decimal comma, or a list
  | \d++(?:\.\d++)?                                              # 7.5
  | (?<![\d.])\.\d++                                             # .5
"""
_TOKEN = re.compile(
    rf"""
    (?P<minus>(?<![\w)\]}}%-])-)?
    (?P<currency>(?:US|A|C|R)?[$€£¥₹]\s?|\b(?:Rs\.?|USD|EUR|GBP|INR|RM)\s?)?
    (?P<sign>(?<![\w)\]}}%-])-)?
    (?:
        (?P<parts>\d{{1,4}}(?::\d\d?){{1,2}}(?![:\d]) | \d{{4}}-\d\d?-\d\d?(?!\d) | \d{{4}}/\d\d?/\d\d?(?!\d)
            | \d\d?/\d\d?/\d{{2,4}}(?!\d) | \d\d?\.\d\d?\.\d{{4}}(?!\d))
      | (?P<whole>\d{{1,9}}(?:\ {{1,2}}|\ and\ {{1,2}}|\ &\ ))?(?P<above>\d{{1,9}})/(?P<below>\d{{1,9}})(?!\d|[,./]\d)
      | (?P<body>{_BODY})
        (?P<exponent>[eE][+-]?\d++(?!\w))?
        (?P<power>\s?\^\s?(?:\{{\s?[+-]?\d++\s?\}}|[+-]?\d++)(?P<tower>\s?\^)?)?
        (?P<ten>\s?(?:[×x*·]|\\times)\s?10\s?\^\s?(?:\{{\s?[+-]?\d++\s?\}}|[+-]?\d++))?
        (?:\s?/\s?(?P<divisor>\d++(?:\.\d++)?)(?!\s?[/\d]))?
    )
    (?P<ordinal>(?:st|nd|rd|th)\b)?
    (?P<big>[\s-]?(?:(?:{"|".join(name for name in _BIG if len(name) > 3 and name.isascii())})s?\b|万|亿))?
    (?P<short>(?:k|K|M|mn|B|bn)\b)?
    (?P<percent>\s?(?:%|percent\b|per\ cent\b|pct\b))?
    """,
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)
# Signs that 3,4 is two numbers: a bracket before it, or a word that announces several.
_LIST = re.compile(r"(?:[(\[{]|(?:\b(?:are|were|between|and|from|both)\b:?\s?))$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Number:
    """The value of a written number; of a time, a date or a ratio, the last of its ``parts``.

    ``value`` ignores a percent sign. A rounded root or multiple of pi is not ``exact``; ``decimals`` are the digits
    after the decimal point.
    """

    value: Fraction
    percent: bool = False
    parts: tuple[int, ...] = ()
    exact: bool = True
    decimals: int = 0

    @property
    def finite(self) -> bool:
        """Whether it has a finite decimal expansion."""
        rest = self.value.denominator
        for prime in (2, 5):
            while rest % prime == 0:
                rest //= prime
        return self.exact and rest == 1

    def same(self, other: Number) -> bool:
        """Whether both are the same number.

        50% equals 50 and 1/2, but 50% does not equal 0.5%. A number with endless decimals, such as 1/3, equals itself
        rounded to three decimals or more.
        """
        if self.parts and other.parts:
            return self.parts == other.parts
        if self.percent != other.percent:
            given, bare = (self, other) if self.percent else (other, self)
            return _equal(given, bare) or _equal(Number(given.value / 100, decimals=given.decimals + 2), bare)
        return _equal(self, other)

    def __str__(self) -> str:
        """Return a canonical spelling, which reads back as the same number."""
        if self.parts:
            return ":".join(map(str, self.parts))
        end = "%" if self.percent else ""
        if not self.exact:
            return f"{float(self.value):.12g}{end}"
        denominator, places = self.value.denominator, 0
        while 10**places % denominator and places < DIGITS // 2:
            places += 1
        if 10**places % denominator:
            return f"{self.value}{end}"
        digits = str(abs(self.value.numerator) * 10**places // denominator).zfill(places + 1)
        text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
        return f"{'-' if self.value < 0 else ''}{text}{end}"


@dataclass(frozen=True, slots=True)
class FoundNumber:
    """A number's location in a text; its value is read on demand, because most numbers are not the final one."""

    match: re.Match[str]

    @property
    def start(self) -> int:
        """Where it begins."""
        return self.match.start()

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.match.end()

    @property
    def doubtful(self) -> bool:
        """Whether it is an ordinal, or part of a name such as CO2 or step3."""
        start = self.match.start()
        before = self.match.string[start - 1 : start]
        named = before.isascii() and before.isalpha() and not self.match["currency"]
        return named or self.match["ordinal"] is not None

    def read(self) -> Number | None:
        """Its value; None if it has none or is too long to be an answer."""
        match = self.match
        if match.end() - match.start() > 3 * DIGITS:
            return None
        sign = -1 if match["minus"] or match["sign"] else 1
        if match["parts"]:
            parts = tuple(int(part) for part in re.split(r"\D", match["parts"]))
            return Number(Fraction(parts[-1]), parts=parts)
        decimals = 0
        if match["above"]:
            above, below = int(match["above"]), int(match["below"])
            if below == 0:
                return None
            # 3 1/2 is one number; 2023 12/3 are two.
            value = Fraction(above, below) + (int(re.sub(r"\D", "", match["whole"])) if self._mixed else 0)
        else:
            spelled = self._decimal()
            if spelled is None:
                return None
            value, decimals = spelled
        value *= sign * Fraction(10) ** self._magnitude()
        if max(abs(value.numerator), value.denominator) >= 10**DIGITS:
            return None
        return Number(value, match["percent"] is not None, decimals=decimals)

    @property
    def _mixed(self) -> bool:
        return self.match["whole"] is not None and int(self.match["above"]) < int(self.match["below"])

    def _magnitude(self) -> int:
        big, short = self.match["big"], self.match["short"]
        if big:
            name = big.strip(" -\n\t").lower()
            return _BIG[name] if name in _BIG else _BIG[name.removesuffix("s")]
        return _BIG[short.lower()] if short and self.match["currency"] else 0  # $5k is money, 5k a race, 5 m a length

    def _decimal(self) -> tuple[Fraction, int] | None:
        match = self.match
        body = _dotted(match["body"], match.string[max(0, match.start() - 12) : match.start()])
        decimals = len(body.partition(".")[2])
        if len(body) > DIGITS:
            return None
        value = Fraction(body)
        ten = sum(
            _whole(part) for part in (match["exponent"], (match["ten"] or "").partition("^")[2]) if part
        )  # fmt: skip
        if abs(ten) > DIGITS or match["tower"]:
            return None
        if match["power"]:
            power = _whole(match["power"])
            if abs(power) * len(body) > 2 * DIGITS or (value == 0 and power < 0):
                return None
            value **= power
        if match["divisor"]:
            divisor = Fraction(match["divisor"]) if len(match["divisor"]) <= DIGITS else Fraction(0)
            if divisor == 0:
                return None
            value, decimals = value / divisor, 0
        return value * Fraction(10) ** ten, decimals


def numbers_in(text: str) -> Iterator[FoundNumber]:
    """The numbers of a text from `plain`, from left to right."""
    return map(FoundNumber, _TOKEN.finditer(text))


def _dotted(body: str, before: str) -> str:
    """The number in Python's notation; for a list without spaces, the last number."""
    body = re.sub(r"[ '_]", "", body)
    comma, dot = body.rfind(","), body.rfind(".")
    if comma < 0:
        return body.replace(".", "") if body.count(".") > 1 else body
    if dot > comma:
        return body.replace(",", "")
    if dot >= 0:
        return body.replace(".", "").replace(",", ".")
    groups = re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d\d)+,\d{3}", body)
    if groups:
        return body.replace(",", "")
    return body[comma + 1 :] if _LIST.search(before) else body.replace(",", ".")


def _whole(text: str) -> int:
    found = re.search(r"[+-]?\d+", text)
    digits = found[0] if found else "0"
    return int(digits) if len(digits) < 6 else 10**6


def _equal(one: Number, other: Number) -> bool:
    if one.value == other.value:
        return True
    if not (one.exact and other.exact) and abs(one.value - other.value) <= abs(one.value) / 10**9:
        return True
    endless, rounded = (other, one) if one.finite else (one, other)
    if endless.finite or not rounded.finite or rounded.decimals < 3:
        return False
    return abs(endless.value - rounded.value) <= Fraction(1, 2 * 10**rounded.decimals)
