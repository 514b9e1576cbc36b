"""What several commands do alike: read files with bad lines, ask before a cost, show progress and figures."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path
from typing import Any

from judge_decoding.cli.console import progress
from judge_decoding.cli.terminal import ask, say, say_json, warn
from judge_decoding.data.cases import Case, read_cases
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.questions import Fields, Question, Rows, read_questions

MOST_WARNINGS = 5


@contextmanager
def warnings() -> Iterator[Warnings]:
    """Print the first few sentences about what is left out to stderr, and at the end how many more there were."""
    counted = Warnings()
    try:
        yield counted
    finally:
        if counted.count > MOST_WARNINGS:
            warn(f"Left out: {counted.count - MOST_WARNINGS} more lines.")


class Warnings:
    """Prints the first few sentences and counts all."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, sentence: str) -> None:
        """One more."""
        self.count += 1
        if self.count <= MOST_WARNINGS:
            warn(f"Left out: {sentence}")


def read(path: Path) -> list[Case]:
    """The good cases of a file; the bad lines are named on stderr."""
    with warnings() as on_bad:
        return read_cases(path, on_bad=on_bad)


def read_prompts(
    source: str,
    rows: Callable[[Callable[[str], None]], Rows],
    fields: Fields,
    render: Callable[[str], str] | None,
    limit: int | None,
) -> list[Question]:
    """The questions of ``rows``; bad rows are reported on stderr."""
    with warnings() as on_bad:
        return read_questions(rows(on_bad), fields, on_bad, render=render, limit=limit, source=source)


def agree(cost: str, *, yes: bool) -> None:
    """Print the cost and ask for confirmation, unless ``yes``.

    Raises:
        JudgeDecodingError: nobody is there to answer.
    """
    say(cost, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise JudgeDecodingError(
            "The cost needs confirmation and standard input is not a terminal; add --yes. Finished work is kept."
        )
    ask("Continue?")


@contextmanager
def bar(title: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr, where that is a terminal; gives the function that says one more is done."""
    with progress() as shown:
        task = shown.add_task(title, total=total, completed=done)
        yield lambda: shown.advance(task)


def show(figures: Mapping[str, Any], *, json: bool) -> None:
    """Print figures as ``name: value`` lines, or as JSON with names without spaces."""
    if json:
        say_json(json_module.dumps(underscored(figures), indent=2, ensure_ascii=False))
        return
    for name, value in figures.items():
        say(f"{name}: {value}")


def underscored(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    """Replace spaces in our own key names; names chosen by users, such as files and sources, are left unchanged."""
    if not isinstance(value, dict):
        return [underscored(item) for item in value] if isinstance(value, list) else value
    free = ("files", "sources", "writers", "annotators", "questions in several files")
    return {
        name.replace(",", "").replace(" ", "_"): {key: underscored(inner) for key, inner in item.items()}
        if name in free and isinstance(item, dict)
        else underscored(item)
        for name, item in value.items()
    }


def login() -> str:
    """The user's login name; "annotator" for a user id without a name, as in some containers."""
    try:
        return getuser()
    except (KeyError, OSError):
        return "annotator"
