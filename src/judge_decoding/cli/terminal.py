"""The only output path to a user's terminal. Text from files, models and servers is displayed, never interpreted.

Commands print through the functions here and the consoles of `judge_decoding.cli.console`. Other output, such as
library warnings, is cleaned by `guarded`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

import typer

from judge_decoding.visible import one_line, shown, shown_json

_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")


def say(text: str, *, err: bool = False, bold: bool = False) -> None:
    """Write lines to standard output or, with ``err``, to standard error."""
    _write(sys.stderr if err else sys.stdout, shown(text), **({"bold": True} if bold else {}))


def warn(text: str) -> None:
    """Write a line to standard error that must not be missed."""
    _write(sys.stderr, one_line(text), fg=typer.colors.YELLOW)


def fail(text: str) -> None:
    """Write the line to standard error that a command ends with."""
    _write(sys.stderr, one_line(text), fg=typer.colors.RED)


def say_json(text: str) -> None:
    """Write JSON to standard output; what would steer a terminal is escaped as JSON does it."""
    _write(sys.stdout, shown_json(text))


def stream(text: str) -> None:
    """Write a piece of an answer to standard output: shown on a terminal, and elsewhere as it is, byte for byte."""
    raw = unguarded(sys.stdout)
    raw.write(shown(text) if raw.isatty() else text)
    raw.flush()


def ask(question: str) -> None:
    """Ask for confirmation on standard error.

    Raises:
        typer.Abort: no.
    """
    typer.confirm(shown(question), abort=True, err=True)


def unguarded(stream: TextIO) -> TextIO:
    """What is below a guard; another stream is itself, such as rich's while there is a progress bar."""
    return stream.raw if isinstance(stream, _Guard) else stream


def _write(stream: TextIO, text: str, **style: Any) -> None:  # noqa: ANN401  (of several types)
    out = unguarded(stream)
    out.write(f"{typer.style(text, **style) if style and stream.isatty() else text}\n")
    out.flush()


@contextmanager
def guarded() -> Iterator[None]:
    """Guard standard output and standard error while the block runs, against what libraries and models write."""
    before = sys.stdout, sys.stderr
    for stream in before:
        with suppress(AttributeError):  # another kind of stream, as in some notebooks
            cast(Any, stream).reconfigure(errors="backslashreplace")  # unencodable text is not an error
    sys.stdout, sys.stderr = (cast(TextIO, _Guard(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _Guard:
    """A stream that escapes control characters; rich, which prints the help, may set colours.

    Attributes:
        raw: the wrapped stream.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (whatever the stream has)
        return getattr(self.raw, name)

    def write(self, text: str) -> int:
        """Write escaped ``text``. A leading carriage return is kept, since progress bars start with one."""
        start = "\r" if text.startswith("\r") else ""
        self.raw.write(start + shown(text.removeprefix(start)))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    @property
    def rich_proxied_file(self) -> _Colours:
        """The stream that rich writes to instead."""
        return _Colours(self.raw)


class _Colours(_Guard):
    def write(self, text: str) -> int:
        """Write escaped ``text``, keeping its colours."""
        self.raw.write("".join(part if _COLOUR.fullmatch(part) else shown(part) for part in _COLOUR.split(text)))
        return len(text)
