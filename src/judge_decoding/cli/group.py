"""A command group whose modules are imported on demand, as in click's documentation (`LazyGroup`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from importlib import import_module
from inspect import Parameter, Signature, isclass
from typing import Any, ClassVar, NamedTuple, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup


class LazyCommand(NamedTuple):
    """Where a command is, and what the help of its group says of it.

    Attributes:
        entry: the function, the data class of options (see `as_function`) or, for a sub-group, the `typer.Typer`, as
            ``module:name`` in this package.
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
        if isclass(found):
            found = as_function(found)
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


def as_function(options: type[Any]) -> Callable[..., None]:
    """The function of a command whose options are the fields of a data class; its method ``run`` does the work."""

    def call(**given: Any) -> None:  # noqa: ANN401  (of all types)
        options(**given).run()

    hints = get_type_hints(options, include_extras=True)
    parameters = [
        Parameter(
            one.name, Parameter.KEYWORD_ONLY, annotation=hints[one.name],
            default=Parameter.empty if one.default is MISSING else one.default,
        )
        for one in fields(options)
    ]  # fmt: skip
    call.__doc__, call.__annotations__ = options.__doc__, hints
    call.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # any function may have one
    return call


def lazy_app(commands: Mapping[str, LazyCommand], **settings: Any) -> typer.Typer:  # noqa: ANN401  (those of Typer)
    """An app of these commands, for which nothing is imported yet."""
    cls = type("Commands", (LazyGroup,), {"table": commands})
    app = typer.Typer(cls=cls, no_args_is_help=True, **settings)
    app.callback()(lambda: None)
    return app
