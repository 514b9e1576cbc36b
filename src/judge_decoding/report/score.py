"""Show in a terminal how much of given texts each rule keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.columns import Columns
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from judge_decoding.evaluation.acceptance import Acceptance
from judge_decoding.intervals import short_numbers
from judge_decoding.report.tables import text_table
from judge_decoding.visible import shown

COLUMNS = (
    "rule",
    "draft\nlength",
    "accepted draft\ntokens per\nround [95%]",
    "median",
    "mean\nacceptance\nlength",
    "rejected",
)

_BAR = 24


def cells(acceptance: Acceptance) -> list[str]:
    """Return one row of the table, in the order of `COLUMNS`."""
    stats, interval = acceptance.stats, acceptance.accepted_interval
    return [
        short_numbers(str(acceptance.rule)),
        str(acceptance.num_draft_tokens),
        f"{stats.accepted_per_round:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""),
        f"{acceptance.median:g}",
        f"{stats.tokens_per_forward:.2f}",
        f"{acceptance.rejected_share:.1%}",
    ]


def score_table(acceptances: Sequence[Acceptance]) -> RenderableType:
    """Return the table, with a row for each rule and draft length."""
    return text_table(COLUMNS, map(cells, acceptances), gap=1)


def bins(shares: Sequence[float]) -> list[tuple[str, float]]:
    """Merge a histogram over 0, 1, 2, ... into a few labelled bins: single values up to 4, then doubling widths."""
    if len(shares) <= 9:
        return [(str(i), share) for i, share in enumerate(shares)]
    acceptances, start = [], 0
    while start < len(shares):
        end = start if start <= 4 else min(2 * (start - 1), len(shares) - 1)
        label = str(start) if start == end else f"{start}-{end}"
        acceptances.append((label, sum(shares[start : end + 1])))
        start = end + 1
    return acceptances


def histograms(acceptances: Sequence[Acceptance]) -> RenderableType:
    """Return small histograms of the accepted draft tokens per round, one for each of ``acceptances``, side by side."""
    return Columns([_histogram(each) for each in acceptances], padding=(1, 3))


def _histogram(acceptance: Acceptance) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(justify="right", style="dim")
    table.add_column(min_width=_BAR)
    table.add_column(justify="right")
    rows = bins(acceptance.histogram)
    longest = max(share for _, share in rows)
    for label, share in rows:
        bar = "█" * round(_BAR * share / longest) or ("▏" if share else "")
        table.add_row(label, Text(bar, style="color(33)"), f"{share:.0%}")
    table.title = Text(acceptance.name, style="bold")
    table.title_justify = "left"
    return table


def most_rejected(acceptance: Acceptance, spell: Callable[[int], str]) -> Text:
    """Return a line with the five tokens rejected most often; ``spell`` returns a token's text."""
    line = Text(f"{acceptance.name}: ", style="dim")
    tokens = [f"{_quoted(spell(each.token))} {each.times} of {each.decided}" for each in acceptance.most_rejected(5)]
    return line.append(", ".join(tokens) or "nothing")


def _quoted(text: str) -> str:
    return f"«{shown(text).replace(chr(10), '⏎')}»"
