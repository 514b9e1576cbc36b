"""Consoles for tables, styled text and progress bars; external text is never interpreted as control codes or markup."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.status import Status
from rich.style import Style
from rich.text import Text

from judge_decoding.cli.terminal import unguarded
from judge_decoding.visible import shown

_SEEN = Style(conceal=False)


class Terminal(Console):
    """A console that shows whatever it prints, at the end of all layout, so that nothing can come round it."""

    def __init__(self, *, err: bool = False, **options: Any) -> None:  # noqa: ANN401  (rich's own)
        file = unguarded(sys.stderr if err else sys.stdout)
        super().__init__(file=file, stderr=err, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Show what cannot be seen, and drop links, which could lead anywhere."""
        for text, style, control in super().render(renderable, options):
            safe = style.update_link(None) + _SEEN if style else style
            yield Segment(text, safe, control) if control else Segment(shown(text), safe)

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401  (rich's own)
        """Text as it is shown, so that its width is known before it is laid out."""
        return super().render_str(shown(text), **options)

    def status(self, status: RenderableType, **options: Any) -> Status:  # noqa: ANN401  (rich's own)
        """A line with a spinner, whose text is no markup either."""
        return super().status(Text(status) if isinstance(status, str) else status, **options)


def progress(*more: ProgressColumn, begin: Iterable[ProgressColumn] = ()) -> Progress:
    """Progress bars on standard error, where that is a terminal; ``begin`` and ``more`` stand beside the usual ones."""
    notes = Terminal(err=True)
    columns = (
        *begin, TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), *more,
        TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal)
