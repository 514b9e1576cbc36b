"""The result of an answer: what two answers must share to be equivalent."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module

from judge_decoding.errors import JudgeDecodingError

_NUMBER = re.compile(r"(?:(?<!\d)-)?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


def last_number(answer: str) -> str | None:
    """The last number of an answer, without thousands separators and trailing zeros."""
    found: list[str] = _NUMBER.findall(answer)
    if not found:
        return None
    text = found[-1].replace(",", "")
    return text.rstrip("0").rstrip(".") if "." in text else text


def last_choice(answer: str) -> str | None:
    """The last single capital letter A to J, as multiple-choice answers end in."""
    found = re.findall(r"(?<![A-Za-z'])[A-J](?![A-Za-z'])", answer)
    return found[-1] if found else None


def whole_text(answer: str) -> str:
    """The answer itself, spaces at its ends and runs of them apart."""
    return " ".join(answer.split())


def result_function(spelling: str) -> Callable[[str], str | None]:
    """The function for ``number``, ``choice``, ``text``, ``regex:PATTERN`` or ``module:function``.

    A pattern's last match counts, its first group if it has one. A function gets the answer and gives a text or None.

    Raises:
        JudgeDecodingError: there is no such thing.
    """
    known: dict[str, Callable[[str], str | None]] = {
        "number": last_number,
        "choice": last_choice,
        "text": whole_text,
    }
    if spelling in known:
        return known[spelling]
    kind, separator, rest = spelling.partition(":")
    if kind == "regex" and separator:
        try:
            pattern = re.compile(rest)
        except re.error as error:
            raise JudgeDecodingError(f"The pattern {rest!r} is no regular expression: {error}; mend it.") from error
        return lambda answer: _last_match(pattern, answer)
    if separator:
        try:
            function = getattr(import_module(kind), rest)
        except (ImportError, AttributeError, ValueError) as error:
            raise JudgeDecodingError(f"There is no function {spelling}: {error}; check the name.") from error
        if callable(function):
            return function  # type: ignore[no-any-return]  # the user's own
    raise JudgeDecodingError(
        f"There is no result {spelling}; there are {', '.join(known)}, regex:PATTERN and module:function."
    )


def _last_match(pattern: re.Pattern[str], answer: str) -> str | None:
    found = list(pattern.finditer(answer))
    return str(found[-1].group(1 if pattern.groups else 0)) if found else None
