"""The exception a user can cause, whatever they did wrong, and one kind of it that is handled on the way."""

from __future__ import annotations


class JudgeDecodingError(ValueError):
    """Bad input. The message is one sentence that says what is wrong and what to do about it."""


class CannotCompileError(JudgeDecodingError):
    """A model that the static back end cannot run, and why; the eager one can."""
