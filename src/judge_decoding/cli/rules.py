"""``judge-decoding rules``: the verification rules, which decide which draft tokens are kept."""

from __future__ import annotations

from json import dumps
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from judge_decoding.cli import options
from judge_decoding.cli.console import Terminal
from judge_decoding.cli.rule_docs import built_in, texts
from judge_decoding.cli.terminal import say_json
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.plugins import installed
from judge_decoding.spelling import guess


def rules(
    name: Annotated[str | None, typer.Argument(help="Rule to explain; by default all are listed.")] = None,
    json: options.Json = False,
) -> None:
    """List the verification rules, also those of installed packages, or explain one."""
    rows = built_in()
    foreign = installed("judge_decoding.rules", {row["name"] for row in rows})
    if foreign and (name is None or name in foreign):
        from judge_decoding.rules import spelling as known  # noqa: PLC0415  (loads torch)

        rows += [
            known.described(rule) | texts(rule.__doc__ or "")
            for name, rule in known.available_rules().items()
            if name in foreign
        ]
    if name is not None:
        names = [*(row["name"] for row in rows), *foreign]
        chosen = [row for row in rows if row["name"] == name]
        if not chosen:
            raise JudgeDecodingError(
                f"There is no rule {name[:40]}{guess(name, names)}; the rules are {', '.join(dict.fromkeys(names))}."
            )
        rows = chosen
    if json:
        say_json(dumps(rows if name is None else rows[0], indent=2, ensure_ascii=False))
    elif name is None:
        _list(rows)
    else:
        _explain(rows[0])


def spelling(row: dict[str, Any]) -> str:
    """A rule with its parameters, as ``--rule`` takes it."""
    given = ", ".join(
        key if key in row["required"] else f"{key}={_shown(value)}" for key, value in row["parameters"].items()
    )
    return f"{row['name']}({given})" if given else str(row["name"])


def _list(rows: list[dict[str, Any]]) -> None:
    console = Terminal(highlight=False)
    for row in rows:
        console.print(Text(spelling(row), style="bold"))
        console.print(Padding(Text(row["summary"]), (0, 0, 0, 4)))
    console.print(
        Text(
            "\nParameters with a value above can be left out. Rules can be joined: judge(threshold=0.7) | top_k(k=4). "
            "Explain one with: judge-decoding rules NAME.",
            style="dim",
        )
    )


def _explain(row: dict[str, Any]) -> None:
    console = Terminal(highlight=False)
    console.print(Text(f"{spelling(row)}\n", style="bold"))
    for paragraph in row["text"].split("\n\n"):
        console.print(Text(" ".join(paragraph.split()) + "\n"))
    strict = ", ".join(f"{key}={_shown(value)}" for key, value in (row["strict"] or {}).items())
    table = Table.grid(padding=(0, 2))
    for title, text in (
        ("lossless", "yes: the target's own distribution" if row["lossless"] else "no"),
        ("strict at", f"{strict}, where it equals exact verification" if strict else ""),
        ("needs", ", ".join(row["needs"]) or "only the target's logits"),
        ("parameters", ", ".join(f"{key} ({row['types'][key]})" for key in row["parameters"])),
    ):
        if text:
            table.add_row(Text(title, style="bold"), Text(text))
    console.print(table)


def _shown(value: object) -> str:
    return "the head's" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
