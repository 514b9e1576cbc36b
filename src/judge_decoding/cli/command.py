"""The class of all commands: spellings, configuration files, bounds of numbers, and the help."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from judge_decoding.bounds import check_bound
from judge_decoding.cli.outputs import WORK
from judge_decoding.cli.panels import RUN
from judge_decoding.cli.spellings import spelled
from judge_decoding.cli.terminal import say, warn

CONFIGURED = frozenset({"fit", "train", "evaluate", "sweep", "bench", "draft", "score", "serve"})
"""Commands whose options can come from a file."""
_FILE = typer.Option(
    help="YAML or TOML file with options by name; the command line takes precedence.", rich_help_panel=RUN
)


class Command(TyperCommand):
    """A command that accepts deprecated spellings, and checks the numbers among its options first; see `BOUNDS`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        if self.name in CONFIGURED:
            self.params.append(_config_option())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  (typer has its own click, by version)
        """Parse arguments in today's spelling; warn of deprecated ones."""
        if not (ctx.resilient_parsing or self.context_settings.get("ignore_unknown_options")):
            args = self.modern(ctx, args)
        return super().parse_args(ctx, args)

    def modern(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """The arguments in today's spelling; options of a configuration file become the defaults."""
        file = _given_config(args) if self.name in CONFIGURED else None
        if file is not None:
            ctx.default_map = import_module("judge_decoding.cli.config_file").read_config(Path(file), self.params)
        defaults = ctx.default_map or {}
        flags = {option for one in self.params if getattr(one, "is_flag", False) for option in one.opts}
        known = {option for one in self.params for option in (*one.opts, *one.secondary_opts)}
        found = spelled(
            words_of(ctx), args, lambda option: option in known - flags and option != "--help",
            operand="target" not in defaults,
            needed=sum(p.param_type_name == "argument" and p.required and p.name not in defaults for p in self.params),
        )  # fmt: skip
        for note in found.notes:
            warn(f"Warning: {note}")
        return found.words

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
