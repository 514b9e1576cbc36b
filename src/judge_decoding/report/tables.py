"""Tables of text for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from judge_decoding.visible import shown


def text_table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", words: int = 1, gap: int = 2
) -> Table:
    """Return a table without lines: the first ``words`` columns may be folded, the others hold figures, to the right.

    Titles may contain line breaks; cells are plain text. ``gap`` is the number of spaces between columns.
    """
    table = Table(
        title=Text(title) if title else None, title_justify="left", title_style="bold", box=None, header_style="bold",
        pad_edge=False, padding=(0, gap, 0, 0),
    )  # fmt: skip
    for place, name in enumerate(titles):
        word = place < words
        table.add_column(Text(name), justify="left" if word else "right", no_wrap=not word, overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    return table
