"""Untrusted text in Markdown: shown verbatim on one line, never interpreted as markup.

Everything that CommonMark or GitHub's extensions (tables, bare links, mentions, formulas) could interpret is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from judge_decoding.visible import one_line

_MARKUP = re.compile(r"[\\`*_\[\]<>~$&@!#{}]|:(?=//)|\.(?=[^\W\d])")


def plain(text: str) -> str:
    """Escape ``text`` for any place except the beginning of a line."""
    return _MARKUP.sub(r"\\\g<0>", one_line(text))


def code(text: str) -> str:
    """Format ``text`` as inline code; not for tables, where a bar would end the cell."""
    line = one_line(text)
    marks = "`" * (_longest_run(line) + 1)
    space = " " if line[:1] in ("", "`", " ") or line[-1:] == "`" else ""
    return f"{marks}{space}{line}{space}{marks}"


def block(text: str, language: str = "") -> str:
    """Format ``text`` as a code block."""
    fence = "`" * max(_longest_run(text) + 1, 3)
    return f"{fence}{language}\n{text}\n{fence}\n"


def json_block(value: object) -> str:
    """Format a value as a JSON code block."""
    return block(json.dumps(value, indent=2), "json")


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table of Markdown cells; the first column holds text, the others hold figures, aligned right."""
    aligned = ["---", *["---:"] * (len(titles) - 1)]
    cells = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in (titles, aligned, *cells))


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
