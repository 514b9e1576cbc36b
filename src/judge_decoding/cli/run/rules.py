"""Implementation of ``judge-decoding rules``, called with checked options."""

from __future__ import annotations

from json import dumps

from rich.table import Table
from rich.text import Text

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.terminal import say_json
from judge_decoding.rules.spelling import available_rules, described


def run(*, json: bool) -> None:
    """Print the rules."""
    rows = [described(rule) for rule in available_rules().values()]
    if json:
        say_json(dumps(rows, indent=2, ensure_ascii=False))
        return

    table = Table("rule", "parameters", "strict at", "lossless", "needs", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        given = (
            key if key in row["required"] else f"{key}={_shown(value)}" for key, value in row["parameters"].items()
        )
        strict = (f"{key}={_shown(value)}" for key, value in (row["strict"] or {}).items())
        cells = (row["name"], ", ".join(given), ", ".join(strict), "yes" if row["lossless"] else "no")
        table.add_row(*map(Text, (*cells, ", ".join(row["needs"]))))
    console = Terminal()
    console.print(table)
    console.print(
        "\nWrite a rule as in judge(threshold=0.7) | top_k(k=4); what has a value above can be left out. At its strict "
        "setting a rule gives what exact verification gives.",
        style="dim",
        highlight=False,
    )


def _shown(value: object) -> str:
    return "the head's" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
