"""The exception for all user errors, and two that are handled internally."""

from __future__ import annotations


class JudgeDecodingError(ValueError):
    """Bad input. The message is one sentence: what is wrong and how to fix it.

    Any function may raise it; the docstrings of the public API say when, those of other functions do not repeat it.
    """


class CannotCompileError(JudgeDecodingError):
    """The static back end cannot run a model, for the reason in the message; the eager back end can."""


class RowError(Exception):
    """A row of a file or a data set is unusable; the message gives the reason, to be shown after the row's number."""


def reason(error: BaseException) -> str:
    """Return a library error's message as one short line, to be used inside a sentence."""
    message = " ".join((str(error).strip().splitlines() or [""])[0].split()).rstrip(".")[:300]
    if not message:
        return type(error).__name__
    # A bare key explains nothing.
    return f"{type(error).__name__}: {message}" if isinstance(error, LookupError) else message
