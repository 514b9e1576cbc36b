"""The results of ``bench``, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from judge_decoding import markdown
from judge_decoding.evaluation.bench.results import BenchResults, BenchRow, Ratio
from judge_decoding.intervals import UNKNOWN, number
from judge_decoding.report.tables import text_table


def _times(ratio: Ratio | None) -> str:
    return UNKNOWN if ratio is None else f"{ratio.medians:.2f}x"


BenchColumns = Mapping[str, Callable[[BenchRow], str]]
"""Column titles, which may contain line breaks, with the function from a row to its cell."""

SPEED: BenchColumns = {
    "tokens per second\n[least, most]": lambda row: f"{row.tokens_per_second:.0f} [{row.low:.0f}, {row.high:.0f}]",
    "over\ngenerate": lambda row: _times(row.over_generate),
    "over\nassisted": lambda row: _times(row.over_assisted),
    "accepted\nper\nround": lambda row: number(row.accepted_per_round),
    "tokens\nper\nforward": lambda row: number(row.tokens_per_forward),
}
"""The columns of the speed table."""


def tables(results: BenchResults) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, column heads and rows of each table: the speed at every batch size, and the comparisons."""
    found = []
    for size in dict.fromkeys(row.batch_size for row in results.rows):
        rows = [row for row in results.rows if row.batch_size == size]
        found.append((f"Batch size {size}", *_cells(rows, SPEED)))
    if results.comparisons:
        heads = ["one", "over another", "batch\nsize", "of the\nmedians", "in pairs\n[least, most]"]
        lines = [
            [one.of, one.over, str(one.batch_size), f"{one.medians:.2f}x", number(one.paired, one.low, one.high, "x")]
            for one in results.comparisons
        ]
        found.append(("Ratios of tokens per second", heads, lines))
    return found


def _cells(rows: Sequence[BenchRow], columns: BenchColumns) -> tuple[list[str], list[list[str]]]:
    return ["way", *columns], [[row.name, *(cell(row) for cell in columns.values())] for row in rows]


def terminal_tables(results: BenchResults) -> list[Table]:
    """Return the tables for a terminal, narrow enough for 80 columns."""
    return [
        text_table(heads, lines, title=title, words=2 if heads[0] == "one" else 1, gap=1)
        for title, heads, lines in tables(results)
    ]


def notes(results: BenchResults) -> list[str]:
    """Return sentences that explain the figures and point out caveats."""
    said = [
        f"Tokens per second are medians of {results.repetitions} repetitions in which all ways took turns, from prompt "
        "ids to token ids, reading the prompts included."
    ]
    if results.tuned_on and any("best" in row.note for row in results.rows):
        said.append(f"Best draft lengths were chosen on other prompts ({results.tuned_on}).")
    wrong = [row for row in results.rows if row.same_tokens and row.unlike]
    said += [
        f"NOT the tokens of plain greedy decoding: {row.name} at batch size {row.batch_size}, {row.unlike} of "
        f"{results.prompts} prompts."
        for row in wrong
    ]
    if not wrong:
        said.append("Every way but the judge gave the tokens of plain greedy decoding.")
    said += [
        f"{row.name} at batch size {row.batch_size}: other tokens to {row.unlike} of {results.prompts} prompts."
        for row in results.rows
        if not row.same_tokens
    ]
    said += [f"Left out: {what}: {why}." for what, why in results.left_out.items()]
    return said


def bench_markdown(results: BenchResults) -> str:
    """Return the page ``bench.md``."""
    models = [("target", results.target), ("draft", results.draft), ("judge", results.judge)]
    roles = ", ".join(f"{role} {markdown.plain(name)}" for role, name in models if name)
    text = (
        f"Made by {markdown.code(' '.join(results.command))} on {markdown.plain(results.machine)}: {roles}; "
        f"{results.dtype}, {results.prompts} prompts of {markdown.plain(results.task)}, at most "
        f"{results.max_new_tokens} new tokens.\n"
    )
    for title, heads, lines in tables(results):
        cells = [[markdown.plain(cell) for cell in line] for line in lines]
        # Join heads that are broken into lines, also within a word ("-" and a line break).
        titles = [head.replace("-\n", "").replace("\n", " ") for head in heads]
        text += f"\n## {title}\n\n{markdown.table(titles, cells)}"
    return text + "\n" + "\n".join(f"- {markdown.plain(note)}" for note in notes(results)) + "\n"


def show(results: BenchResults, console: Any) -> None:  # noqa: ANN401  (rich's console)
    """Print the tables and notes."""
    for table in terminal_tables(results):
        console.print(table)
        console.print()
    for note in notes(results):
        console.print(note, style=None if note.startswith("NOT") else "dim", highlight=False, markup=False)
