"""Tables of text, as wide as the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from shutil import get_terminal_size

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from judge_decoding.visible import shown


def text_table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", words: int = 1, gap: int = 2
) -> Table:
    """Return a table without lines: the first ``words`` columns may be folded, the others hold figures, to the right.

    Titles may contain line breaks; cells are plain text. ``gap`` is the number of spaces between columns. A single
    column of words is folded to the terminal's width between words, or after a bracket, never inside a number.
    """
    lines = [[shown(cell) for cell in row] for row in rows]
    if words == 1:
        columns = ([*name.split("\n"), *(line[place] for line in lines)] for place, name in enumerate(titles))
        widths = [max(map(cell_len, column)) for column in columns]
        room = get_terminal_size().columns - sum(widths[1:]) - gap * len(widths[1:])
        lines = [[folded(first, room), *rest] for first, *rest in lines]
    table = Table(
        title=Text(title) if title else None, title_justify="left", title_style="bold", box=None, header_style="bold",
        pad_edge=False, padding=(0, gap, 0, 0),
    )  # fmt: skip
    for place, name in enumerate(titles):
        word = place < words
        table.add_column(Text(name), justify="left" if word else "right", no_wrap=not word, overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def folded(name: str, room: int) -> str:
    """Return a name on lines of at most ``room`` columns where that can be, all but the first with an indent."""
    if cell_len(name) <= room:
        return name
    pieces: list[str] = []
    for piece in (r"\S+\s*", r"[^\s(]*\(|[^\s(]+\s*"):  # after spaces or, if that is not enough, after brackets, too
        pieces = re.findall(piece, name)
        if all(cell_len(one.rstrip()) + 2 * (place > 0) <= room for place, one in enumerate(pieces)):
            break
    lines = [""]
    for piece in pieces:
        if lines[-1].strip() and cell_len(lines[-1] + piece.rstrip()) > room:
            lines.append("  ")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
