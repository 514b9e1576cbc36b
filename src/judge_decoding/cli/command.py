"""The class of all commands: operands for options, configuration files, bounds of numbers, and the help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from judge_decoding.bounds import check_bound
from judge_decoding.cli.options import RUN
from judge_decoding.cli.outputs import WORK
from judge_decoding.cli.terminal import say

CONFIGURED = frozenset({"fit", "train", "evaluate", "sweep", "bench", "draft", "score", "serve"})
"""Commands whose options can come from a file."""
OPERANDS: Mapping[str, tuple[str, ...]] = {
    "generate": ("--target",), "draft": ("--target",), "train": ("--target",), "info": ("--judge",),
    "card": ("--judge",), "push": ("--judge",), "court import": ("--format", "-f"), "court export": ("--format", "-f"),
}  # fmt: skip
"""The option, in all of its spellings, that a command's first operand stands for unless the option is given."""
_FILE = typer.Option(
    help="YAML or TOML file with options by name; the command line takes precedence.", rich_help_panel=RUN
)


class Command(TyperCommand):
    """A command whose first operand may stand for an option, and that checks the numbers among its options first.

    See `OPERANDS` and `BOUNDS`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        if self.name in CONFIGURED:
            self.params.append(_config_option())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  (typer has its own click, by version)
        """Parse arguments; options of a configuration file become the defaults."""
        if not (ctx.resilient_parsing or self.context_settings.get("ignore_unknown_options")):
            file = _given_config(args) if self.name in CONFIGURED else None
            if file is not None:
                ctx.default_map = import_module("judge_decoding.cli.config_file").read_config(Path(file), self.params)
            args = spell_out(words_of(ctx), args, self.params, ctx.default_map or {})
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run the command.

        Raises:
            JudgeDecodingError: a number is out of its bounds.
            typer.Exit: it is interrupted, or a question is answered with no; a line says what is kept, and how to
                resume.
        """
        for parameter in self.params:
            check_bound(parameter.name or "", ctx.params.get(parameter.name), max(parameter.opts, key=len))
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, typer.Abort) as stop:
            refused = isinstance(stop, typer.Abort)
            if refused and WORK not in ctx.meta:
                raise
            kept = [path for path in ctx.meta.get(WORK, ()) if path.exists()]
            note = f"finished work is kept in {kept[0]}, and the same command resumes." if kept else "nothing is kept."
            say(f"Stopped: {note}", err=True)
            raise typer.Exit(1 if refused else 130) from stop

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Print the help; rich is imported for it only."""
        import_module("judge_decoding.cli.help").show(self, ctx)


def _config_option() -> Any:  # noqa: ANN401
    """Return the option ``--config``, which no command's function needs."""

    def asks(config: Annotated[Path | None, _FILE] = None) -> None: ...

    single = typer.Typer(add_completion=False)
    single.command()(asks)
    option = next(one for one in get_command(single).params if one.name == "config")
    option.expose_value = False
    return option


def _given_config(args: list[str]) -> str | None:
    for place, word in enumerate(args):
        if word == "--":
            break
        if word.startswith("--config="):
            return word.partition("=")[2]
        if word == "--config" and place + 1 < len(args):
            return args[place + 1]
    return None


def words_of(ctx: Any) -> str:  # noqa: ANN401
    """The words of a context's command, without the program: such as "court view"."""
    names: list[str] = []
    while ctx.parent is not None:
        names.insert(0, ctx.info_name)
        ctx = ctx.parent
    return " ".join(names)


def spell_out(
    command: str, words: Sequence[str], params: Sequence[Any], defaults: Mapping[str, Any] = MappingProxyType({})
) -> list[str]:
    """Write the option for a first operand that stands for it.

    It does so only if there are more operands than the command cannot do without: ``train cases.jsonl`` lacks a target,
    not the cases.

    Args:
        command: the words of the command.
        words: what follows them.
        params: the command's parameters.
        defaults: values of a configuration file, by the parameters' names.
    """
    out, names, places = list(words), OPERANDS.get(command, ()), _operands(words, params)
    needed = sum(one.param_type_name == "argument" and one.required and one.name not in defaults for one in params)
    given = "target" in defaults or any(word.partition("=")[0] in names or word[:2] in names for word in words)
    if not names or given or len(places) <= needed:
        return out
    option, place = names[0], places[0]
    if place and words[place - 1] == "--":
        out[place - 1 : place + 1] = [f"{option}={words[place]}", "--"]
    else:
        out.insert(place, option)
    return out


def _operands(words: Sequence[str], params: Sequence[Any]) -> list[int]:
    """The places of the operands among the words."""
    takes_value = {name for one in params if not getattr(one, "is_flag", False) for name in one.opts}
    found: list[int] = []
    place = 0
    while place < len(words):
        word = words[place]
        if word == "--":
            return [*found, *range(place + 1, len(words))]
        if word == "-" or not word.startswith("-"):
            found.append(place)
        elif word in takes_value:
            place += 1
        place += 1
    return found
