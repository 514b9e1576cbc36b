"""Confidence intervals and tests for the tables, computed with scipy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from scipy.stats import binomtest, bootstrap


def wilson(right: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of a share ``right / count``."""
    interval = binomtest(right, count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Return the exact two-sided McNemar p value: do two methods have equal accuracy on the same problems?

    Only problems on which they differ count; 1.0 if there are no such problems.
    """
    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


Interval = tuple[float, float]
"""The lower and the upper limit."""


def difference_interval(a: Sequence[bool], b: Sequence[bool], confidence: float = 0.95) -> Interval:
    """Return Newcombe's interval of share(a) - share(b) for two methods on the same problems.

    Method 10 of Newcombe, Statistics in Medicine 17 (1998) 2635, built from Wilson's intervals. Unlike a bootstrap, it
    does not shrink to zero width if both methods agree on all of a few problems.
    """
    count, right_a, right_b = len(a), sum(a), sum(b)
    both = sum(x and y for x, y in zip(a, b, strict=True))
    neither = count - right_a - right_b + both
    share_a, share_b = right_a / count, right_b / count
    (low_a, high_a), (low_b, high_b) = wilson(right_a, count, confidence), wilson(right_b, count, confidence)
    product = float(both * neither - (right_a - both) * (right_b - both))
    if product > 0:  # a correction for continuity, never across 0
        product = max(product - count / 2, 0)
    scale = math.sqrt(right_a * (count - right_a) * right_b * (count - right_b))
    correlation = product / scale if scale else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    difference = share_a - share_b
    return difference - reach(share_a - low_a, high_b - share_b), difference + reach(high_a - share_a, share_b - low_b)


def ratio_interval(pairs: Sequence[tuple[float, float]]) -> Interval | None:
    """Return the 95% percentile bootstrap interval of sum(a) / sum(b) over ``pairs`` (a, b), such as one pair per text.

    Whole pairs are resampled, because tokens of one text are correlated. None for fewer than two pairs. The same pairs
    give the same interval.
    """
    return _bootstrap(pairs, lambda a, b, axis: a.sum(axis) / b.sum(axis))


def rate_ratio_interval(rows: Sequence[tuple[float, float, float, float]]) -> Interval | None:
    """Return the 95% bootstrap interval of (sum(a) / sum(b)) / (sum(c) / sum(d)), as `ratio_interval`.

    It compares the rates of two methods on the same problems: tokens and seconds of the first, then of the second.
    """

    def ratio(a: Any, b: Any, c: Any, d: Any, axis: int) -> Any:  # noqa: ANN401  (arrays)
        return a.sum(axis) / b.sum(axis) / (c.sum(axis) / d.sum(axis))

    return _bootstrap(rows, ratio)


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return the 95% bootstrap interval of a mean, as `ratio_interval`."""
    return _bootstrap([(value,) for value in values], lambda a, axis: a.mean(axis))


def _bootstrap(rows: Sequence[tuple[float, ...]], statistic: Callable[..., Any]) -> Interval | None:
    if len(rows) < 2:
        return None
    found = bootstrap(
        tuple(zip(*rows, strict=True)), statistic, n_resamples=2000, batch=100, vectorized=True, paired=True,
        confidence_level=0.95, method="percentile", rng=0,
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
