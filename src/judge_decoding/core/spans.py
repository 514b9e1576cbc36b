"""Where a piece of a text is."""

from __future__ import annotations

Span = tuple[int, int]
"""The characters ``[start, end)`` of a text."""
