"""The progress bar and the tables of ``evaluate`` and ``sweep``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import TextColumn
from rich.text import Text

from judge_decoding.cli.console import Terminal, progress
from judge_decoding.cli.terminal import say
from judge_decoding.core.results import ItemResult, LoadRow, Results
from judge_decoding.intervals import short_numbers
from judge_decoding.report.results import LOADS_NOTE, loads_table, notes, plain_table, results_tables, vllm_options

_SHORTEST_BAR = 10


@contextmanager
def running(title: str, total: int, done: int = 0) -> Iterator[Callable[[str, ItemResult], None]]:
    """A progress bar with accuracy and tokens per forward so far; gives the function that takes an answer."""
    so_far: dict[str, list[ItemResult]] = {}
    with progress(TextColumn("{task.fields[state]}", markup=False)) as shown:
        room = shown.console.width - len(title) - len(f" {total}/{total} 0:00:00 ") - _SHORTEST_BAR
        bar = shown.add_task(title, total=total, completed=done, state="")

        def take(name: str, one: ItemResult) -> None:
            own = so_far.setdefault(name, [])
            own.append(one)
            verdicts = [each.correct for each in own if each.correct is not None]
            right = f"{sum(verdicts) / len(verdicts):.0%} right, " if verdicts else ""
            speed = sum(each.tokens for each in own) / max(sum(each.rounds for each in own), 1)
            state = f"{right}mean acceptance length {speed:.1f}"
            forms = (f"{short_numbers(name)}: {state}", state, right.removesuffix(", "), "")
            shown.update(bar, advance=1, state=next(form for form in forms if len(form) <= max(room, 0)))

        yield take


def print_results(results: Results, more: str = "") -> None:
    """Print the tables, what they mean, and ``more``."""
    console = Terminal()
    console.print(Text.assemble("\n", (f"{results.items} items of {results.task}", "bold"), f", {results.machine}\n"))
    for table in results_tables(results):
        console.print(table)
        console.print()
    console.print(" ".join(filter(None, (notes(results), more))), style="dim", highlight=False)


def print_loads(rows: Sequence[LoadRow]) -> None:
    """Print the speed by load and draft length, and the options with which vLLM drafts by load."""
    console = Terminal()
    console.print()
    console.print(plain_table(*loads_table(rows)))
    for sentence in vllm_options(rows):
        say(f"\n{sentence}")
    console.print(f"\n{LOADS_NOTE}", style="dim", highlight=False)
