"""A command group whose modules are imported on demand, as in click's documentation (`LazyGroup`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class LazyCommand(NamedTuple):
    """Where a command is, and what the help of its group says of it.

    Attributes:
        entry: the function or, for a sub-group, its `typer.Typer`, as ``module:name`` in this package.
        help: the first line of its docstring or help.
        settings: what else `typer.Typer.command` is given.
    """

    entry: str
    help: str
    settings: Mapping[str, Any] = {}


class LazyGroup(TyperGroup):
    """Lists the commands of its table by their help there, and imports the one that is invoked."""

    table: ClassVar[Mapping[str, LazyCommand]]

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401  (typer's own)
        super().__init__(**kwargs)
        self.commands = {name: TyperCommand(name, help=one.help) for name, one in self.table.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401  (click's)
        """The command that is named, imported."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else self.load(name), rest  # no name: completion behind an unknown command

    def load(self, name: str) -> Any:  # noqa: ANN401  (typer has its own click, by version)
        """Import a command."""
        entry, _, settings = self.table[name]
        module, _, attribute = entry.partition(":")
        found = getattr(import_module(f"judge_decoding.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        single = typer.Typer(add_completion=False)
        single.command(name, cls=import_module("judge_decoding.cli.command").Command, **settings)(found)
        return typer.main.get_command(single)

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401  (click's)
        """Print the help; rich is imported for it only."""
        import_module("judge_decoding.cli.help").show(self, ctx)

    def walk(self, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Import all commands, also those of groups within, and yield each one's words and the command."""
        for name in self.table:
            found = self.load(name)
            if isinstance(found, LazyGroup):
                yield from found.walk((*words, name))
            else:
                yield (*words, name), found


def lazy_app(commands: Mapping[str, LazyCommand], **settings: Any) -> typer.Typer:  # noqa: ANN401  (those of Typer)
    """An app of these commands, for which nothing is imported yet."""
    cls = type("Commands", (LazyGroup,), {"table": commands})
    app = typer.Typer(cls=cls, no_args_is_help=True, **settings)
    app.callback()(lambda: None)
    return app
