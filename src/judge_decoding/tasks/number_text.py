"""Normalise the spelling of digits, spaces, signs and LaTeX before numbers are searched.

Every pattern here is linear in the text, because the text comes from a model and can be anything.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+", strict=True))
_RAISED = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_WIDE_COMMA = re.compile(r"(?<=\d)\uff0c(?=\d{3}(?!\d))")
_UNREAD = re.compile(r"[^\x00-\x7f]")

_CHARACTERS = {
    **dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\u2066\u2067\u2068\u2069\ufeff\u00ad", ""),
    **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"),
    **dict.fromkeys("\u2019\u02bc", "'"),
    **dict.fromkeys("\u2044\u2215\uff0f", "/"),
    **dict.fromkeys("\u22c5\u2219\u2022\u2217", "·"),
    "\u066b": ".", "\u066c": ",", "\uff0e": ".", "\u066a": "%", "\uff05": "%", "\uff1d": "=", "\uff1a": ":",
    "\uff08": "(", "\uff09": ")", "\uff04": "$", "\ufe69": "$", "\u2248": "=", "\u3002": ". ",
}  # fmt: skip

_WORDS = r"text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox|bm|operatorname"
_LATEX: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\{([,.])\}", r"\1"),  # 9{,}500
        (r"\\!|\\(?:left|right|displaystyle|[bB]igg?[lr]?)(?![A-Za-z])", ""),
        (rf"\\(?:{_WORDS})\s*\{{([^{{}}]*)\}}", r" \1 "),
        (r"\\[,;: ]|\\q?quad(?![A-Za-z])|\\thinspace(?![A-Za-z])|\\[\[\]()]|~", " "),
        (r"\^\s*(?:\{\s*)?\\circ(?:\s*\})?", "°"),
        (r"\\([$%#&])", r"\1"),
        (r"\\(?:times|ast)(?![A-Za-z])", "×"),
        (r"\\cdot(?![A-Za-z])", "·"),
        (r"\\div(?![A-Za-z])", "÷"),
        (r"\\approx(?![A-Za-z])", "="),
    )
)
_PART = r"(?:\{([^{}]*)\}|(\d))"
_FRACTION = re.compile(rf"(?P<before>\d\s*)?\\[dtc]?frac\s*{_PART}\s*{_PART}")
_POWER_OF_UNIT = re.compile(r"(?<=[A-Za-z)\]])\s?\^\s?(?:\{[-+]?\d{1,3}\}|[-+]?\d{1,3})")
_SIGN_APART = re.compile(r"(?<==)( ?)- (?=[$€£]?[\d.])")
_SIGN_IN_WORDS = re.compile(
    r"(?:(?<![A-Za-z])negative|(?:(?<=is )|(?<=[:=] )|(?<=[:=])|^)minus) (?=[$€£]?\d)", re.IGNORECASE | re.MULTILINE
)
_MONEY = re.compile(
    r"(?<![\d.,])(\d[\d,]{0,12}) (?:dollar|euro|pound|buck)s?,?(?: and)? (\d\d?) (?:cents?|pence)\b", re.IGNORECASE
)
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")


def plain(text: str) -> str:
    """The text with ASCII digits, one kind of space, minus and slash, and common LaTeX without its commands.

    GSM8K's calculator annotations (``<<3*4=12>>12``) are removed. A power is kept only after a digit, so that ``12
    cm²`` contains one number.
    """
    if not text.isascii():
        text = _RAISED.sub(_power, text)
        text = _WIDE_COMMA.sub(",", text)
        text = _UNREAD.sub(lambda found: _ascii(found[0]), text)
    if "<<" in text:
        text = _CALCULATOR.sub("", text)
    if "\\" in text or "{" in text or "~" in text:
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
        text = _FRACTION.sub(_fraction, text)
    text = _POWER_OF_UNIT.sub("", text)
    text = _SIGN_APART.sub(r"\1-", text)
    text = _SIGN_IN_WORDS.sub("-", text)
    return _MONEY.sub(lambda found: f"{found[1]}.{found[2]:0>2} dollars", text)


def foreign_numeral(text: str) -> bool:
    """Whether the text has an unsupported numeral, such as a lone superscript, ``Ⅻ`` or ``①``."""
    return not text.isascii() and any(unicodedata.category(letter) in {"No", "Nl"} for letter in text)


def _power(found: re.Match[str]) -> str:
    before = found.string[found.start() - 1 : found.start()]
    if not (before.isdecimal() or before in {")", "}"}):
        return ""
    return f"^{{{''.join(_SUPERSCRIPTS[letter] for letter in found[0])}}}"


@lru_cache(maxsize=4096)
def _ascii(letter: str) -> str:
    if letter in _CHARACTERS:
        return _CHARACTERS[letter]
    digit = unicodedata.decimal(letter, None)
    if digit is not None:
        return str(digit)
    parts = unicodedata.normalize("NFKC", letter).split("\u2044")
    if len(parts) == 2 and all(part.isdecimal() for part in parts):  # ½, also after a whole number: 2½
        return f" {parts[0]}/{parts[1]}"
    return letter


def _fraction(found: re.Match[str]) -> str:
    above, below = found[2] or found[3] or "", found[4] or found[5] or ""
    whole = f"{found['before'].rstrip()} " if found["before"] else ""
    # A space as in 9 500/2 would look like that of a mixed number.
    above, below = above.replace(" ", ""), below.replace(" ", "")
    simple = all(re.fullmatch(r"-?[\d.,']{1,40}", part) for part in (above, below))
    return f"{whole}{above}/{below}" if simple else f"{whole}({above})/({below})"
