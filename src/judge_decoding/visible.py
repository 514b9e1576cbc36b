r"""Escape the characters of untrusted text that are invisible or control a terminal, as ``\x1b`` or ``\u202e``.

These are control characters, direction overrides, zero-width and blank characters, line separators, tags and lone
surrogates. Newlines and tabs stay. So do joiners and variation selectors after a character of Persian, an Indic script
or emoji, whose spelling needs them.
"""

from __future__ import annotations

import re

_JOINERS = r"\u180b-\u180d\u200c\u200d"
_SELECTORS = r"\ufe00-\ufe0f"
_BARE = (  # invisible in any position
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u070f\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff"
)
_UNSEEN = re.compile(
    rf"[{_BARE}]"
    rf"|(?<=[\x00-\x7f{_BARE}{_JOINERS}])[{_JOINERS}]|\A[{_JOINERS}](?=[\x00-\x7f])"
    rf"|(?<=[\x00-\x7f{_BARE}{_JOINERS}{_SELECTORS}])[{_SELECTORS}](?!\u20e3)"
)


def shown(text: str) -> str:
    """Escape ``text`` for display in a terminal or on a page."""
    return text if text.isascii() and text.isprintable() else _UNSEEN.sub(_escape, text)


def shown_json(text: str) -> str:
    """Escape the same characters in JSON text with JSON's own escapes: the value does not change."""
    return text if text.isascii() and text.isprintable() else _UNSEEN.sub(_json_escape, text)


def one_line(text: str) -> str:
    """Escape ``text`` for display on one line."""
    return shown(" ".join(text.split()))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
