"""Pieces of a text, such as an answer's errors."""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[int, int]
"""The characters ``[start, end)`` of a text."""


def touches(start: int, end: int, spans: Sequence[Span]) -> bool:
    """Whether ``[start, end)`` overlaps one of ``spans``; an empty span marks where the text should not have ended."""
    return any(start < max(stop, begin + 1) and end > begin for begin, stop in spans)


def body(text: str, start: int, end: int) -> int:
    """Return the first position in ``[start, end)`` that is not white space, or ``start`` if all of it is."""
    space = len(text[start:end]) - len(text[start:end].lstrip())
    return start + space if start + space < end else start
