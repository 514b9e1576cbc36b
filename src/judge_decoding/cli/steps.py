"""Progress of a long command: a bar for each step on a terminal, a line for each step elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress, SpinnerColumn, TaskID, TimeElapsedColumn

from judge_decoding.cli.console import progress
from judge_decoding.cli.terminal import say


class Steps:
    """Call it with what is being done, and how much of how much is; a total of 0 is one nobody knows.

    Args:
        shown: the bars.
        lines: where there is no terminal, write a line to stderr as a step begins whose total is known.
    """

    def __init__(self, shown: Progress, *, lines: bool) -> None:
        self._shown, self._lines = shown, lines
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """So much of a step is done."""
        if what not in self._tasks:
            for earlier in self._tasks.values():  # show one step at a time; some steps end early
                self._shown.update(earlier, visible=False)
            self._tasks[what] = self._shown.add_task(what, total=total or None)
            if self._lines and self._shown.disable and done < total:
                say(f"{what[:1].upper()}{what[1:]} ...", err=True)
        self._shown.update(self._tasks[what], total=total or None, completed=done)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bars away, for a question to the user."""
        self._shown.stop()
        try:
            yield
        finally:
            self._shown.start()


@contextmanager
def steps(*, lines: bool = False) -> Iterator[Steps]:
    """Show steps on stderr while the block runs; see `Steps`."""
    with progress(TimeElapsedColumn(), begin=[SpinnerColumn()]) as shown:
        yield Steps(shown, lines=lines)
