"""Foreign text in Markdown: shown as it is, in one line, and never markup.

What is escaped is what CommonMark and GitHub's extensions (tables, bare links, mentions, formulas) could take for some.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from judge_decoding.visible import one_line

_MARKUP = re.compile(r"[\\`*_\[\]<>~$&@!#{}]|:(?=//)|\.(?=[^\W\d])")


def plain(text: str) -> str:
    """``text`` as words, for any place but the beginning of a line."""
    return _MARKUP.sub(r"\\\g<0>", one_line(text))


def code(text: str) -> str:
    """``text`` as code among words; not for tables, where a bar would end the cell."""
    line = one_line(text)
    marks = "`" * (_longest_run(line) + 1)
    space = " " if line[:1] in ("", "`", " ") or line[-1:] == "`" else ""
    return f"{marks}{space}{line}{space}{marks}"


def block(text: str, language: str = "") -> str:
    """``text`` as lines of code."""
    fence = "`" * max(_longest_run(text) + 1, 3)
    return f"{fence}{language}\n{text}\n{fence}\n"


def json_block(value: object) -> str:
    """A value as JSON."""
    return block(json.dumps(value, indent=2), "json")


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown; the first column is words, the others are figures and set to the right."""
    aligned = ["---", *["---:"] * (len(titles) - 1)]
    cells = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in (titles, aligned, *cells))


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
