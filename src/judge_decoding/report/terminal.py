"""Show answers in a terminal, readable with and without colour."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from judge_decoding.core.rounds import Cause
from judge_decoding.report.verdicts import MEANING, ShownRound
from judge_decoding.visible import shown

# Blue, orange and grey are safe for colour-blind readers; the marks serve where there is no colour.
STYLES = {
    Cause.AGREED: "default",
    Cause.RESCUED: "bold underline color(208)",
    Cause.CORRECTION: "bold reverse color(33)",
    Cause.BONUS: "italic color(33)",
}
MARKS = {Cause.AGREED: ("", ""), Cause.RESCUED: ("«", "»"), Cause.CORRECTION: ("{", "}"), Cause.BONUS: ("(", ")")}


def token_text(text: str, cause: Cause, *, marks: bool) -> Text:
    """Return a token in the style of its cause, optionally between marks; its leading space stays outside them."""
    text = shown(text)
    body = text.lstrip(" ")
    before, after = MARKS[cause] if marks else ("", "")
    line = Text(text[: len(text) - len(body)])
    line.append(f"{before}{body}{after}", style=STYLES[cause])
    return line


def legend(*, marks: bool = True, rejected: bool = False) -> RenderableType:
    """Explain each style and mark, one row each; with ``rejected``, the rejected rest of a draft too."""
    table = Table.grid(padding=(0, 0, 0, 2))
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    for cause in Cause:
        table.add_row(token_text(cause.value, cause, marks=marks), MEANING[cause])
    if rejected:
        table.add_row(Text("✗struck", style="dim strike"), "the rest of the draft, rejected")
    return table


def worked_example(rounds: Iterable[ShownRound]) -> RenderableType:
    """Return an answer, one row per round: the number of accepted draft tokens, the kept tokens, the rejected rest."""
    table = Table.grid()
    table.add_column(no_wrap=True, style="dim")
    table.add_column()
    for number, event in enumerate(rounds, start=1):
        line = Text()
        for token in event.tokens:
            line.append_text(token_text(token.text.replace("\n", "⏎"), token.cause, marks=True))
        if event.rejected:
            line.append(f"  ✗{shown(event.rejected)}", style="dim strike")
        table.add_row(f"{number:3} {event.accepted:3} accepted │", line)
    return table
