"""The statistics of an honest table, through scipy."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import binomtest, bootstrap


def wilson(right: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share ``right / count``."""
    interval = binomtest(right, count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Exact two-sided McNemar p of two methods on the same problems: are their right answers equally many?

    Only the problems on which they differ count; 1.0 if there are none.
    """
    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


Interval = tuple[float, float]
"""The lower and the upper end."""


def ratio_interval(pairs: Sequence[tuple[float, float]], confidence: float = 0.95) -> Interval | None:
    """Bootstrap interval (percentiles) of sum(a) / sum(b) over ``pairs`` (a, b), such as one a text.

    The pairs are drawn anew, not what is in them, since what comes from one text is alike. None for fewer than two
    pairs. The same pairs give the same interval.
    """
    if len(pairs) < 2:
        return None
    found = bootstrap(
        tuple(zip(*pairs, strict=True)),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        n_resamples=2000, batch=100, vectorized=True, paired=True, confidence_level=confidence, method="percentile",
        rng=0,
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
