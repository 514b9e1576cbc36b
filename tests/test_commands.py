"""The group of commands: it lists them without importing them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from commands import Run, commands
from judge_decoding.cli.command import Command
from judge_decoding.cli.group import LazyGroup
from judge_decoding.cli.main import app


def members(group: Any = None) -> list[tuple[LazyGroup, str]]:
    """All that stands in a table, of the groups below too."""
    group = group or get_command(app)
    found = [(group, name) for name in group.table]
    below = [group.load(name) for name in group.table]
    return found + [one for inner in below if isinstance(inner, LazyGroup) for one in members(inner)]


@pytest.mark.parametrize(("group", "name"), members(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_table_says_what_a_command_says_of_itself(group: LazyGroup, name: str) -> None:
    command = group.load(name)
    help_of_its_own = (
        command.help if isinstance(command, TyperGroup) else inspect.getdoc(inspect.unwrap(command.callback))
    )
    assert group.table[name].help == str(help_of_its_own).partition("\n")[0]
    assert isinstance(command, LazyGroup | Command)


def test_all_commands_are_found() -> None:
    names = [" ".join(words) for words, _ in commands()]
    assert len(names) == len(set(names)) == 33
    assert {"demo", "lm-eval", "court import", "court label equivalence"} <= set(names)


@pytest.mark.parametrize(
    ("words", "near"),
    [(["genrate"], "generate"), (["court", "colect"], "collect"), (["court", "label", "lm"], "llm")],
    ids=str,
)
def test_a_mistyped_command_is_answered_with_one_that_is_near(run: Run, words: list[str], near: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert f"No such command '{words[-1]}'. Did you mean '{near}'?" in err
