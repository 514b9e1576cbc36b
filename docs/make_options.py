"""Write docs/options.md: every option of the command line, and the commands that have it.

    python docs/make_options.py

An option means one thing: the same help, default and kind of value in all commands. `REASONS` lists the exceptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from typer.main import get_command

from judge_decoding.cli.command import OPERANDS
from judge_decoding.cli.group import LazyGroup
from judge_decoding.cli.help import kinds, notes_of
from judge_decoding.cli.main import app
from judge_decoding.cli.options import OTHER, PANELS

PAGE = Path(__file__).with_name("options.md")

REASONS = {
    "--backend": "`bench` measures both back ends, and only chooses whether to compile.",
    "--batch-size": "`fit` and `draft` answer many short prompts, `evaluate` times single requests, `bench` compares, "
    "and `sweep` only measures draft lengths by it.",
    "--checker": "`collect` can also run unit tests, or leave answers unchecked; the others compare two answers by "
    "their results.",
    "--draft": "Prompt lookup has no tokens or hidden states of its own to label or to train on.",
    "--draft-layers": "`draft` makes a draft model and needs a number; `fit` and `bench` use one only if asked.",
    "--dry-run": "`serve` would run a command, `push` would upload files.",
    "--judge": "`info`, `card` and `push` are about a head, and need one.",
    "--limit": "A task's items are drawn at random, so that a part stands for the whole; a file's order is yours. "
    "`demo` and `bench` always draw.",
    "--margin": "A threshold is chosen more strictly than it is tested, so that a calibrated head passes the test.",
    "--max-new-tokens": "A task or model may have a budget of its own, which is the default where there is one.",
    "--model": "`collect` compares several models.",
    "--num-draft-tokens": "`sweep`, `bench` and `score` compare several; `draft` measures at one.",
    "--out": "Each command writes something else.",
    "--pair": "`demo` shows one of the included pairs; `play` takes any models, and several.",
    "--port": "`play` and `court annotate` can run at the same time.",
    "--rule": "`sweep` and `score` compare several rules; the others use one.",
    "--seed": "`generate` and endpoints are repeatable only if asked; everything else always is.",
    "--show": "A page of scores is about figures, a page of answers about answers.",
    "--target": "`bench` runs without arguments; for `info`, `collect` and `annotate` a target is an extra.",
    "--task": "`bench` runs without arguments.",
    "--temperature": "`generate` follows the model's generation configuration; votes of `label llm` must differ.",
    "--threshold": "`sweep` compares several.",
    "--tune": "`bench` repeats its measurements, so it tunes on fewer items.",
}
"""Why an option differs between commands."""


class Meaning(NamedTuple):
    """What an option is in some commands."""

    help: str
    notes: str
    kind: str


class Option(NamedTuple):
    """An option.

    Attributes:
        names: its spelling, the long one first.
        panel: the heading of the help that it stands under.
        meanings: what it means, with the commands in which it does.
    """

    names: tuple[str, ...]
    panel: str
    meanings: dict[Meaning, list[str]]


def all_commands() -> Iterator[tuple[str, Any]]:
    """Every command and its words."""
    group = get_command(app)
    assert isinstance(group, LazyGroup)
    return ((" ".join(words), command) for words, command in group.walk())


def options() -> dict[str, Option]:
    """Every option by its long name."""
    found: dict[str, Option] = {}
    for words, command in all_commands():
        kind = kinds(command)
        for one in command.params:
            if one.param_type_name != "option" or one.name == "help":
                continue
            names = tuple(sorted((*one.opts, *one.secondary_opts), key=lambda name: not name.startswith("--")))
            option = found.setdefault(names[0], Option(names, one.rich_help_panel or OTHER, {}))
            meaning = Meaning(" ".join((one.help or "").split()), notes_of(one).strip(), kind.get(one.name, ""))
            option.meanings.setdefault(meaning, []).append(words)
    return dict(sorted(found.items()))


def page() -> str:
    """The page."""
    known = options()
    lines = [
        "# Options",
        "",
        "Every option of the command line, and the commands that have it. An option means the same in all of them;",
        "where it differs, the reason stands below it. `python docs/make_options.py` writes this page.",
    ]
    for panel in PANELS:
        here = [one for one in known.values() if one.panel == panel]
        if not here:
            continue
        lines += ["", f"## {panel}", "", "| option | meaning | commands |", "|---|---|---|"]
        for one in here:
            names = ", ".join(f"`{name}`" for name in one.names)
            for number, (meaning, commands) in enumerate(one.meanings.items()):
                kind = f" {meaning.kind}" if meaning.kind else ""
                told = f"{meaning.help} {meaning.notes}".strip().replace("|", "\\|")
                lines.append(f"| {names + kind if not number else ''} | {told} | {', '.join(commands)} |")
            if len(one.meanings) > 1:
                lines.append(f"| | *Why: {REASONS.get(one.names[0], 'no reason')}* | |")
    lines += [
        "", "## Operands", "",
        "The first operand of these commands may stand for an option:", "",
        "| command | option |", "|---|---|",
        *(f"| {command} | `{names[0]}` |" for command, names in OPERANDS.items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
