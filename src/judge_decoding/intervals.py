"""Format figures with their confidence intervals for people to read; "-" if unknown."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

UNKNOWN = "-"


def share(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Format a share in percent: ``93.3% [84.1, 97.4]``."""
    return UNKNOWN if value is None else f"{value:.1%}" + _ends(low, high, lambda end: f"{100 * end:.1f}")


def points(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Format a difference of shares in percentage points, with its sign: ``-1.7 [-8.6, +5.1]``."""
    return UNKNOWN if value is None else _point(value) + _ends(low, high, _point)


def number(value: float | None, low: float | None = None, high: float | None = None, unit: str = "") -> str:
    """Format any other figure: ``2.31 [2.20, 2.43]``."""
    return UNKNOWN if value is None else f"{value:.2f}{unit}" + _ends(low, high, lambda end: f"{end:.2f}")


def p_value(value: float | None) -> str:
    """Format a p value with two digits."""
    return UNKNOWN if value is None else "< 0.001" if value < 0.001 else f"{value:.2g}"


def _point(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:+.1f}"  # no -0.0


def _ends(low: float | None, high: float | None, format_end: Callable[[float], str]) -> str:
    return "" if low is None or high is None else f" [{format_end(low)}, {format_end(high)}]"


def short_numbers(text: str) -> str:
    """Shorten the numbers in ``text``, such as the threshold in a rule's spelling, as far as they decide the same."""
    return re.sub(r"\d*\.\d{4,}", lambda match: fewest_digits(float(match[0])), text)


def fewest_digits(value: float) -> str:
    """Return the number with the fewest digits that is the same as ``value`` in single precision.

    Thresholds are compared with scores in single precision, so what is printed decides as what was calibrated.
    """
    wanted = _single(value)
    for digits in range(1, 10):
        if _single(float(found := f"{value:.{digits}g}")) == wanted:
            return f"{float(found):g}" if digits <= 6 else found
    return repr(value)


def _single(value: float) -> float:
    """Round to single precision; what is beyond it stays as it is."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return value
