"""The result of an answer: what two answers must share to be equivalent."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module

from judge_decoding.errors import JudgeDecodingError, reason
from judge_decoding.tasks.final import final_number

ResultFunction = Callable[[str], str | None]
"""From an answer to its result; None if it has none."""


def last_number(answer: str) -> str | None:
    """The final number of an answer in its shortest decimals, or a fraction if they do not end; see `final_number`."""
    found = final_number(answer)
    return None if found is None else str(found)


def same_result(result: ResultFunction, one: str | None, other: str | None) -> bool:
    """Whether two results of the same function are equal: numbers by value, anything else as text."""
    if result is not last_number or one is None or other is None:
        return one == other
    first, second = final_number(one), final_number(other)
    return first is not None and second is not None and first.same(second)


def last_choice(answer: str, letters: str = "ABCDEFGHIJ") -> str | None:
    r"""The letter of the last "Answer: X", "answer is X" or ``\boxed{X}``, otherwise the last one that stands alone.

    The words A and I count only if there is nothing else.
    """
    letter = rf"([{letters}])(?![\w'])"
    named: list[str] = re.findall(
        rf"(?:\\boxed\s?\{{\W{{0,3}}(?:text\w*\W{{1,3}})?|(?i:answer)\W*(?i:is\b)?\W*){letter}", answer
    )
    alone = named or re.findall(rf"(?<![\w']){letter}(?! [a-z])", answer) or re.findall(rf"(?<![\w']){letter}", answer)
    return alone[-1] if alone else None


def whole_text(answer: str) -> str:
    """The answer itself, without surrounding whitespace and with runs of whitespace collapsed."""
    return " ".join(answer.split())


def result_function(spelling: str) -> ResultFunction:
    """The function for ``number``, ``choice``, ``exact`` (or ``text``), ``regex:PATTERN`` or ``module:function``.

    A pattern's last match counts, its first group if it has one. A function maps the answer to a text or None.
    """
    known: dict[str, ResultFunction] = {
        "number": last_number,
        "choice": last_choice,
        "exact": whole_text,
        "text": whole_text,
    }
    if spelling in known:
        return known[spelling]
    kind, separator, rest = spelling.partition(":")
    if kind == "regex" and separator:
        try:
            pattern = re.compile(rest)
        except re.error as error:
            raise JudgeDecodingError(
                f"The pattern {rest!r} is not a regular expression: {error}; correct it."
            ) from error
        return lambda answer: _last_match(pattern, answer)
    if separator:
        try:
            function = getattr(import_module(kind), rest)
        except Exception as error:  # the import runs the user's own code
            raise JudgeDecodingError(f"There is no function {spelling} ({reason(error)}); check the name.") from error
        if callable(function):
            return function  # type: ignore[no-any-return]  # user code, not typed
    raise JudgeDecodingError(
        f"There is no checker {spelling}; the checkers are number, choice, exact, regex:PATTERN and module:function."
    )


def result_name(result: str | ResultFunction) -> str:
    """A result in words, to distinguish settings."""
    if isinstance(result, str):
        return result
    return f"{result.__module__}:{getattr(result, '__qualname__', type(result).__qualname__)}"


def _last_match(pattern: re.Pattern[str], answer: str) -> str | None:
    found = list(pattern.finditer(answer))
    return str(found[-1].group(1 if pattern.groups else 0)) if found else None
