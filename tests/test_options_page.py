"""One option means one thing in all commands; the page of options is up to date, and no help cuts their names."""

from __future__ import annotations

import pytest

import make_options as made
from commands import Run, commands, find


def test_the_page_is_up_to_date() -> None:
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run: python docs/make_options.py"


def test_an_option_that_differs_between_commands_has_a_reason() -> None:
    """Help, default, kind of value, and whether it is required or repeatable."""
    assert {name for name, one in made.options().items() if len(one.meanings) > 1} == made.REASONS.keys()


def test_an_option_stands_under_one_heading() -> None:
    known = made.options()
    for words, command in made.all_commands():
        for one in command.params:
            if one.param_type_name == "option" and one.name != "help":
                assert known[max(one.opts, key=len)].panel == (one.rich_help_panel or "Other"), words


@pytest.mark.parametrize("words", [words for words, _ in commands() if words != ("lm-eval",)], ids=" ".join)
def test_a_help_of_80_columns_shows_whole_names(run: Run, words: tuple[str, ...]) -> None:
    code, out, err = run(*words, "--help", columns=80)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    lines = out.split("\n")
    for one in find(words)[0].params:
        names = [*one.opts, *one.secondary_opts] if one.param_type_name == "option" else [one.name.upper()]
        for name in names:
            assert any(name in line.replace(",", " ").split() for line in lines), name
