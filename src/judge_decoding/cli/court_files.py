"""Helpers of the ``court`` commands: read files that contain bad lines, and print figures."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from judge_decoding.cli.console import progress
from judge_decoding.cli.terminal import ask, say, say_json, warn
from judge_decoding.data.cases import Case, read_cases
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.questions import Fields, Question, Rows, read_questions

MOST_WARNINGS = 5


class Warnings:
    """Tells the first few sentences on stderr and counts the rest."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, sentence: str) -> None:
        """One more."""
        self.count += 1
        if self.count <= MOST_WARNINGS:
            warn(f"Left out: {sentence}")

    def close(self) -> None:
        """Say how many were not told."""
        if self.count > MOST_WARNINGS:
            warn(f"Left out: {self.count - MOST_WARNINGS} more lines.")


def read(path: Path) -> list[Case]:
    """The good cases of a file; the bad lines are named on stderr."""
    warnings = Warnings()
    try:
        return read_cases(path, on_bad=warnings)
    finally:
        warnings.close()


def read_prompts(
    source: str,
    rows: Callable[[Callable[[str], None]], Rows],
    fields: Fields,
    render: Callable[[str], str] | None,
    limit: int | None,
) -> list[Question]:
    """The questions of ``rows``, which are told of bad ones by what they are given; these are named on stderr."""
    warnings = Warnings()
    try:
        return read_questions(rows(warnings), fields, warnings, render=render, limit=limit, source=source)
    finally:
        warnings.close()


def agree(cost: str, *, yes: bool) -> None:
    """Tell what is to be spent and ask whether to go on, unless ``yes``.

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
        plain = {name.replace(" ", "_").replace(",", ""): value for name, value in figures.items()}
        say_json(json_module.dumps(plain, indent=2, ensure_ascii=False))
        return
    for name, value in figures.items():
        say(f"{name}: {value}")
