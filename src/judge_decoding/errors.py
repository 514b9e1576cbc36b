"""The exception a user can cause, whatever they did wrong, and one kind of it that is handled on the way."""

from __future__ import annotations


class JudgeDecodingError(ValueError):
    """Bad input. The message is one sentence that says what is wrong and what to do about it."""


class CannotCompileError(JudgeDecodingError):
    """A model that the static back end cannot run, and why; the eager one can."""


def reason(error: BaseException) -> str:
    """What an error of a library says, in one short line, to go into a sentence."""
    said = " ".join((str(error).strip().splitlines() or [""])[0].split()).rstrip(".")[:300]
    if not said:
        return type(error).__name__
    return f"{type(error).__name__}: {said}" if isinstance(error, LookupError) else said  # a key alone says nothing
