"""The columns of every results table, in a terminal, on a page and in a model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from judge_decoding.core.results import MATCHED, ResultRow
from judge_decoding.intervals import UNKNOWN, number, p_value, points, share

ResultColumns = Mapping[str, Callable[[ResultRow], str]]
"""Column titles, which may contain line breaks, with the function from a row to its cell."""


def _shown(row: ResultRow) -> str:
    if row.non_inferior is None:
        return UNKNOWN
    if row.lossless and not row.rule.endswith(MATCHED):
        return "lossless"
    if row.difference_high is not None and row.difference_high < 0:
        return "worse"
    return "shown" if row.non_inferior else "inconclusive"


def _by_position(row: ResultRow) -> str:
    """Acceptance at the first, the middle and the last position of a draft."""
    shares = row.acceptance_by_position
    chosen = sorted({0, len(shares) // 2, len(shares) - 1}) if shares else []
    return " / ".join(f"{shares[position]:.0%}" for position in chosen) or UNKNOWN


QUALITY: ResultColumns = {
    "accuracy [95%]": lambda row: share(row.accuracy, row.accuracy_low, row.accuracy_high),
    "difference from\ntarget (pp) [95%]": lambda row: points(row.difference, row.difference_low, row.difference_high),
    "McNemar\np": lambda row: p_value(row.mcnemar_p),
    "non-inferiority": _shown,
    "answers\ncut off": lambda row: f"{row.cut_off} of {row.answers}" if row.cut_off else UNKNOWN,
    "grade [95%]": lambda row: number(row.grade, row.grade_low, row.grade_high),
}
"""The columns of the quality table."""

SPEED: ResultColumns = {
    "draft\nlength": lambda row: str(row.num_draft_tokens or UNKNOWN),
    "accepted\ndraft tokens\nper round": lambda row: number(row.accepted_per_round if row.num_draft_tokens else None),
    "acceptance\nrate": lambda row: UNKNOWN if row.acceptance_rate is None else f"{row.acceptance_rate:.0%}",
    "at first /\nmiddle / last\nposition": _by_position,
    "mean\nacceptance\nlength": lambda row: number(row.tokens_per_forward),
    "tokens\nper\nsecond": lambda row: UNKNOWN if row.tokens_per_second is None else f"{row.tokens_per_second:.0f}",
    "speed-up\n[95%]": lambda row: number(row.speedup, row.speedup_low, row.speedup_high, "x"),
}
"""The columns of the speed table."""


def cells(rows: Sequence[ResultRow], columns: ResultColumns) -> tuple[list[str], list[list[str]]]:
    """Return the titles of the columns with values, the method's name first, and the cells of each row."""
    table = {title: [cell(row) for row in rows] for title, cell in columns.items()}
    known = {title: column for title, column in table.items() if set(column) != {UNKNOWN}}
    names = [row.name for row in rows]
    return ["method", *known], [list(line) for line in zip(names, *known.values(), strict=True)]
