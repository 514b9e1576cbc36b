"""The one exception a user can cause, whatever they did wrong."""

from __future__ import annotations


class JudgeDecodingError(ValueError):
    """Bad input. The message is one sentence that says what is wrong and what to do about it."""
