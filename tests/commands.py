"""All commands of the program, and what one gives a user."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from typer.main import get_command

from judge_decoding.cli.group import LazyGroup
from judge_decoding.cli.main import app

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bubblewrap here (Debian's bubblewrap)")

Result = tuple[int, str, str]
"""Exit code, standard output, standard error."""

Run = Callable[..., Result]


def commands() -> Iterator[tuple[tuple[str, ...], Callable[..., None]]]:
    """The words of each command, and its function."""
    group = get_command(app)
    assert isinstance(group, LazyGroup)
    return ((words, inspect.unwrap(command.callback)) for words, command in group.walk())


def find(words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command that these words (without the program's name) mean, and its arguments."""
    command, rest = get_command(app), list(words)
    while rest and rest[0] in getattr(command, "table", ()):
        command, rest = command.load(rest[0]), rest[1:]  # type: ignore[attr-defined]  # it has a table
    return command, rest


def is_one_sentence(result: Result, phrase: str) -> None:
    """The command ended with exit code 2 and nothing but one sentence that has ``phrase`` in it."""
    ends_in_one_sentence(result, phrase)
    assert result[2].count("\n") == 1


def ends_in_one_sentence(result: Result, phrase: str) -> None:
    """The same, where notes may come before it."""
    code, out, err = result
    assert code == 2, out + err
    assert phrase in err
    assert err.splitlines()[-1].startswith("Error: ")
    assert sum(line.startswith("Error: ") for line in err.splitlines()) == 1
    assert "Traceback" not in out + err


def the_sentence(result: Result) -> str:
    """The error that a command ended with."""
    ends_in_one_sentence(result, "Error: ")
    last = result[2].splitlines()[-1]
    assert last.endswith(".")
    return last
