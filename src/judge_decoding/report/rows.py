"""The table of results, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.table import Table

from judge_decoding.evaluation.rows import TARGET, Results, Row
from judge_decoding.report.terminal import safe


def _share(row: Row) -> str:
    if row.accuracy is None:
        return "-"
    low, high = row.accuracy_low or 0.0, row.accuracy_high or 0.0
    return f"{row.accuracy:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def _difference(row: Row) -> str:
    if row.difference is None or row.difference_low is None or row.difference_high is None:
        return "-"
    # 0.0 would be written -0.0 where it is a little below.
    return f"{100 * row.difference + 0.0:+.1f} [{100 * row.difference_low:+.1f}, {100 * row.difference_high:+.1f}]"


def _ratio(value: float | None, low: float | None, high: float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:.2f}{unit}" + (f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else "")


_QUALITY: dict[str, Callable[[Row], str]] = {
    "accuracy [95%]": _share,
    "less the target's,\npoints [95%]": _difference,
    "McNemar\np": lambda row: "-" if row.mcnemar_p is None else f"{row.mcnemar_p:.2g}",
    "non-\ninferior": lambda row: {None: "-", True: "yes", False: "not shown"}[row.non_inferior],
    "grade [95%]": lambda row: _ratio(row.grade, row.grade_low, row.grade_high),
}
_SPEED: dict[str, Callable[[Row], str]] = {
    "draft\nlength": lambda row: str(row.num_draft_tokens or "-"),
    "accepted\ndraft tokens\nper round": lambda row: (
        f"{row.accepted_per_round:.2f}" if row.num_draft_tokens and row.accepted_per_round is not None else "-"
    ),
    "tokens\nper target\nforward": lambda row: f"{row.tokens_per_forward:.2f}",
    "tokens\nper\nsecond": lambda row: "-" if row.tokens_per_second is None else f"{row.tokens_per_second:.0f}",
    "speed-up\n[95%]": lambda row: _ratio(row.speedup, row.speedup_low, row.speedup_high, "x"),
}


def quality(results: Results) -> tuple[list[str], list[list[str]]]:
    """What the answers are worth: the titles of the columns that say something, and the cells of each row."""
    return _cells(results, _QUALITY)


def speed(results: Results) -> tuple[list[str], list[list[str]]]:
    """How fast they came, in the same form."""
    return _cells(results, _SPEED)


def _cells(results: Results, columns: Mapping[str, Callable[[Row], str]]) -> tuple[list[str], list[list[str]]]:
    table = {title: [cell(row) for row in results.rows] for title, cell in columns.items()}
    told = {title: column for title, column in table.items() if set(column) != {"-"}}
    names = [row.name for row in results.rows]
    return ["method", *told], [list(line) for line in zip(names, *told.values(), strict=True)]


def results_tables(results: Results) -> list[Table]:
    """The tables for a terminal, narrow enough for 80 columns: quality, where it is known, and speed."""
    tables = []
    for titles, lines in (quality(results), speed(results)):
        if len(titles) == 1:
            continue
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for title in titles:
            name = title == "method"
            table.add_column(title, justify="left" if name else "right", no_wrap=not name, overflow="fold")
        for line in lines:
            table.add_row(*(safe(cell) for cell in line))
        tables.append(table)
    return tables


def notes(results: Results) -> str:
    """What the figures of the table mean, in sentences."""
    said = [
        "Tokens per target forward count the correction or bonus token too (Spec-Bench's mean accepted tokens); "
        "accepted draft tokens do not (the paper's m*)."
    ]
    compared = [row for row in results.rows if row.difference is not None]
    if compared:
        said.append(
            f"Non-inferior: the interval of the difference shows a loss of at most {100 * results.margin:g} points; "
            "not shown is no proof of a loss."
        )
    if len(compared) > 2:
        said.append(f"{len(compared)} rows are held against {TARGET}: of 20 p below 0.05, one is chance.")
    if any(row.speedup is not None for row in results.rows):
        said.append("Times are of one machine and one run, all methods in turns; reading the prompt is counted.")
    if results.tuning:
        lengths = sorted({row.num_draft_tokens for row in results.tuning})
        said.append(
            f"Draft lengths are each method's fastest of {', '.join(map(str, lengths))} on {results.tuning[0].answers} "
            "other items."
        )
    return " ".join(said)
