"""The values of roots, multiples of pi and short LaTeX calculations, read by math-verify.

math-verify limits its time by an alarm signal, which only the main thread can set. Here the input is limited instead:
short, with little nesting, small powers and no names but ``sqrt``, ``frac`` and ``pi``.
"""

from __future__ import annotations

import logging
import re
import threading
from fractions import Fraction
from functools import lru_cache
from typing import Any

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.tasks.numbers import DIGITS, Number

LENGTH = 80
"""Longer expressions are not read."""
NESTED = 4
"""Expressions with more nested brackets are not read: the parser's time doubles with each level."""

_ALLOWED = re.compile(
    r"(?:\\(?:sqrt|[dtc]?frac|pi|times|cdot|div)(?![A-Za-z])|\d{1,12}(?:\.\d{1,12})?|[-+*/(){} ]|\[\d\]"
    r"|\^\s?(?:\{\s?-?\d\d?\s?\}|\d)(?!\s?[\^)}]\s?\^))+"
)
_UNICODE = ((re.compile(r"√\s?\(([^()]*)\)"), r"\\sqrt{\1}"), (re.compile(r"√\s?(\d+)"), r"\\sqrt{\1}"))
_SPELLINGS = (
    (re.compile(r"\{([,.])\}"), r"\1"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
    (re.compile(r"\\(?:text|mathrm)\s*\{[A-Za-z ./]*\}(?:\s?\^\s?(?:\{\s?\d\s?\}|\d))?"), " "),
    (re.compile(r"\\(?:left|right)(?![A-Za-z])|\\[!,;: $]|[$~]"), " "),
    (re.compile(r"^[^=]*="), ""),
)
_OPERATOR = re.compile(r"\\(?:sqrt|pi)(?![A-Za-z])|[\d)}]\s*(?:[-+*/^(]|\\(?:times|cdot|div))")
_LOCK = threading.Lock()


def calculated(text: str) -> Number | None:
    r"""The value of a short LaTeX expression, such as ``2\sqrt{3}``; None if it is not one, or exceeds the limits."""
    if len(text) > 2 * LENGTH:
        return None
    for pattern, replacement in _UNICODE:
        text = pattern.sub(replacement, text)
    text = text.replace("π", r"\pi ").replace("×", r"\times ").replace("·", r"\cdot ").replace("−", "-")
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    text = text.strip(" .")
    if len(text) > LENGTH or not _OPERATOR.search(text):
        return None
    if text.count("^") > 2 or _depth(text) > NESTED or not _ALLOWED.fullmatch(text):
        return None
    return _evaluated(text)


@lru_cache(maxsize=1024)
def _evaluated(text: str) -> Number | None:
    parse, config = _library()
    # Its parser stores what it learns of the grammar for all calls; two threads must not write there at once.
    with _LOCK:
        try:
            parsed = parse(
                rf"\boxed{{{text}}}", [config], fallback_mode="no_fallback", extraction_mode="first_match",
                parsing_timeout=None,
            )  # fmt: skip
            return _worth(parsed[0]) if parsed else None
        except Exception:  # noqa: BLE001  (sympy fails in many ways on input without a value, such as 1/(2 - 2))
            return None


def _worth(expression: Any) -> Number | None:  # noqa: ANN401  (sympy has no types)
    if not (getattr(expression, "is_number", False) and expression.is_real):
        return None
    value = expression.doit()
    if value.is_Rational:
        found = Fraction(int(value.p), int(value.q))
        return Number(found) if max(abs(found.numerator), found.denominator) < 10**DIGITS else None
    rounded = value.evalf(15)
    return Number(Fraction(str(rounded)), exact=False) if rounded.is_Float and abs(rounded) < 10**DIGITS else None


@lru_cache(maxsize=1)
def _library() -> tuple[Any, Any]:
    # Importing sympy takes more than a second, and hardly any answer needs it.
    try:
        from math_verify import LatexExtractionConfig, parse  # noqa: PLC0415  (see above)
    except ImportError as error:
        raise JudgeDecodingError(
            f"Cannot import math-verify ({error}); install it again: pip install math-verify."
        ) from error
    # It warns once that it runs without a time limit.
    logging.getLogger("math_verify.parser").setLevel(logging.ERROR)
    return parse, LatexExtractionConfig(boxed_match_priority=0)


def _depth(text: str) -> int:
    depth = deepest = 0
    for letter in text:
        depth += (letter in "({") - (letter in ")}")
        deepest = max(deepest, depth)
    return deepest
