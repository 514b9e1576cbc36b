"""The help of a command or group in 80 columns: options by panel, none of their names cut."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.options import OTHER, PANELS

_KINDS = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH"}
_WIDTH = 31
"""The widest first column that is laid out beside the help; below it, the help begins in the next line."""


def show(command: Any, ctx: Any) -> None:  # noqa: ANN401  (typer has its own click, by version)
    """Print the help of a command or of a group of them."""
    console = Terminal(highlight=False)
    console.print()
    console.print(Text.assemble(("Usage: ", "bold yellow"), usage(command, ctx)))
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        console.print()
        console.print(Padding(Text(" ".join(paragraph.split())), (0, 0, 0, 2)))
    kind, commands = kinds(command), getattr(command, "commands", {})
    for title, parameters in panels(command):
        console.print()
        console.print(Text("Options" if commands and title == OTHER else title, style="bold"))
        console.print(_table(parameters, kind))
    if commands:
        console.print()
        console.print(Text("Commands", style="bold"))
        console.print(_grid((Text(f"  {name}", "bold cyan"), Text(one.help or "")) for name, one in commands.items()))
    console.print()


def usage(command: Any, ctx: Any) -> str:  # noqa: ANN401
    """The usage line, without its title."""
    rest = " COMMAND [ARGS]..." if getattr(command, "commands", {}) else ""
    return f"{ctx.command_path} [OPTIONS]{rest}" + "".join(
        f" {one.upper()}" if required else f" [{one.upper()}]"
        for one, required in (
            (f"{arg.name}{'...' if arg.nargs != 1 else ''}", arg.required)
            for arg in command.params
            if arg.param_type_name == "argument"
        )
    )


def panels(command: Any) -> Iterator[tuple[str, list[Any]]]:  # noqa: ANN401
    """The arguments, then the options by panel; hidden ones are left out."""
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    if arguments:
        yield "Arguments", arguments
    options = [one for one in shown if one.param_type_name == "option"]
    for title in PANELS:
        here = [one for one in options if (getattr(one, "rich_help_panel", None) or OTHER) == title]
        if here:
            yield title, here


def names_of(parameter: Any) -> list[str]:  # noqa: ANN401
    """The spellings of a parameter: of an option, the long one first."""
    if parameter.param_type_name == "argument":
        return [parameter.name.upper()]
    long = sorted((*parameter.opts, *parameter.secondary_opts), key=lambda name: not name.startswith("--"))
    return list(long)


def kinds(command: Any) -> dict[str, str]:  # noqa: ANN401
    """What kind of value each parameter takes, by its name in the command's function; empty for a flag."""
    found = {"config": "PATH"}
    for name, hint in get_type_hints(inspect.unwrap(command.callback)).items():
        inner: Any = hint
        while get_args(inner):  # list[int] | None is about int
            inner = get_args(inner)[0]
        found[name] = _KINDS.get(inner, "")
    return found


def notes_of(parameter: Any) -> str:  # noqa: ANN401
    """Default and whether the option is required or repeatable, in brackets."""
    found = []
    if parameter.required:
        found.append("required")
    if getattr(parameter, "multiple", False) and "Repeatable" not in (parameter.help or ""):
        found.append("repeatable")
    default = parameter.default
    empty = default is None or default is False or default in ("", [], ()) or callable(default)
    if not empty and not getattr(parameter, "is_flag", False):
        found.append(f"default: {default}")
    return f" [{', '.join(found)}]" if found else ""


def _table(parameters: Sequence[Any], kinds_of: Mapping[str, str]) -> Table:
    rows = []
    for one in parameters:
        names = names_of(one)
        first = Text("  ")
        first.append(", ".join(names), "bold cyan" if names[0].startswith("-") else "bold")
        kind = kinds_of.get(one.name, "") if names[0].startswith("-") else ""
        if kind:
            first.append(f" {kind}", "yellow")
        if first.cell_len > _WIDTH:
            first = Text("\n").join([Text("  ").append(name, "bold cyan") for name in names])
            if kind:
                first.append(f" {kind}", "yellow")
        text = Text(" ".join((one.help or "").split()))
        text.append(notes_of(one), "dim")
        rows.append((first, text))
    return _grid(rows, _WIDTH)


def _grid(rows: Iterable[tuple[Text, Text]], width: int | None = None) -> Table:
    """Two columns, of which the first is as wide as its texts or as given."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=width, no_wrap=True, overflow="fold")
    table.add_column(ratio=1)
    for first, second in rows:
        table.add_row(first, second)
    return table
