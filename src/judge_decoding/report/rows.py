"""The tables of results for a terminal, and an explanation of their figures."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from judge_decoding.core.results import TARGET, Results, fastest_non_inferior
from judge_decoding.intervals import points, short_numbers
from judge_decoding.report.columns import QUALITY, SPEED, cells
from judge_decoding.report.tables import text_table


def results_tables(results: Results) -> list[Table]:
    """Return the tables for a terminal, narrow enough for 80 columns: quality, where it is known, and speed."""
    both = (cells(results.rows, columns) for columns in (QUALITY, SPEED))
    return [plain_table(titles, lines) for titles, lines in both if len(titles) > 1]


def plain_table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """Return a table of results, with the numbers in the methods' names shortened."""
    return text_table(titles, [[short_numbers(cell) for cell in line] for line in lines])


def notes(results: Results) -> str:
    """Explain the figures of the tables in sentences."""
    said = [
        "The mean acceptance length includes the target's own token, the correction or bonus (Spec-Bench's mean "
        "accepted tokens); accepted draft tokens per round exclude it (the paper's m*)."
    ]
    compared = [row for row in results.rows if row.difference is not None]
    if compared:
        said.append(
            "Non-inferiority is shown where the interval of the difference excludes a loss of more than "
            f"{100 * results.margin:g} percentage points; inconclusive is no proof of a loss. Worse: the interval is "
            "below 0."
        )
    if len(compared) > 2:
        said.append(
            f"{len(compared)} rows are compared with {TARGET}: of 20 p-values below 0.05, one is expected by chance."
        )
    if any(row.speedup is not None for row in results.rows):
        said.append("Times are of one machine and one run, all methods in turns; reading the prompt is counted.")
    if results.tuning:
        lengths = sorted({row.num_draft_tokens for row in results.tuning})
        said.append(
            f"Draft lengths are each method's fastest of {', '.join(map(str, lengths))} on {results.tuning[0].answers} "
            "other items."
        )
        ends = (lengths[0], lengths[-1])
        drafted = [row for row in results.rows if row.num_draft_tokens]
        at_the_end = [row for row in drafted if row.num_draft_tokens in ends]
        if at_the_end and len(lengths) > 2:
            said.append(
                f"{len(at_the_end)} of {len(drafted)} are fastest with the shortest or the longest of them, and may be "
                "faster still beyond (--num-draft-tokens)."
            )
    return " ".join(said)


def fastest(results: Results) -> str:
    """Say which setting is the fastest that is shown to be non-inferior; empty where nothing is right or wrong."""
    if all(row.non_inferior is None for row in results.rows):
        return ""
    margin, best = f"a margin of {100 * results.margin:g} percentage points", fastest_non_inferior(results.rows)
    if best is None:
        return f"No setting is shown to be non-inferior with {margin}; measure more items, or stricter settings."
    speed = f"{best.speedup:.2f}x" if best.speedup else f"mean acceptance length {best.tokens_per_forward:.2f}"
    change = points(best.difference, best.difference_low, best.difference_high)
    return (
        f"Fastest setting shown non-inferior with {margin}: {short_numbers(best.name)}, draft length "
        f"{best.num_draft_tokens}: {speed}, accuracy {change} points."
    )
