"""Foreign text in Markdown is read back as itself, and as nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from judge_decoding.markdown import block, code, plain, table
from judge_decoding.visible import one_line
from samples import HOSTILE

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
MARKUP = "\\`*_[]<>~$&@!#{}|:/.-=+() \n\t\u0000\u2028\u202eaé0"
TEXT = st.text(st.sampled_from(MARKUP) | st.characters(), max_size=30)


def inline(text: str) -> list[Token]:
    """What is in a line: texts, code, and whatever should not be there."""
    (token,) = READER.parseInline(text)
    return token.children or []


@given(TEXT)
@example("<script>alert(1)</script>")
@example("[a](http://x) ![b](y) <http://z> &lt; **c** ~~d~~ `e` \\")
@example(HOSTILE)
def test_words_are_read_back_as_words(text: str) -> None:
    tokens = inline(plain(text))
    assert all(token.type == "text" for token in tokens)
    assert "".join(token.content for token in tokens) == one_line(text)


@given(TEXT)
@example("``a`")
@example("`")
def test_code_is_read_back_as_code(text: str) -> None:
    before, token, after = inline(f"x{code(text)}y")
    assert (before.content, token.type, after.content) == ("x", "code_inline", "y")
    assert token.content.strip() == one_line(text)


@given(st.text(st.sampled_from(MARKUP.replace("\u0000", "")), max_size=40))
@example("```\n# x\n~~~\n````")
def test_a_block_holds_its_lines(text: str) -> None:
    (token,) = READER.parse(block(text, "json"))
    assert (token.type, token.info) == ("fence", "json")
    assert token.content == text + "\n"


@given(TEXT, TEXT)
@example("a|b", "\\|")
@example("\\", "|")
def test_a_cell_stays_in_its_place(first: str, second: str) -> None:
    tokens = READER.parse(table(["one", "two"], [[plain(first), "1"], [plain(second), "2"]]))
    cells = [after for token, after in pairwise(tokens) if token.type in ("th_open", "td_open")]
    told = ["".join(child.content for child in cell.children or []) for cell in cells]
    assert told == ["one", "two", one_line(first), "1", one_line(second), "2"]
    assert {token.type for token in tokens} <= {
        f"{part}_{side}" for part in ("table", "thead", "tbody", "tr", "th", "td") for side in ("open", "close")
    } | {"inline"}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" a \n\n b\t", "a b"),
        ("\u202eabc\u0000", "\\u202eabc\\x00"),
        ("é 数 ✓", "é 数 ✓"),
        ("", ""),
    ],
)
def test_one_line_shows_what_cannot_be_seen(text: str, expected: str) -> None:
    assert one_line(text) == expected


def test_common_names_are_left_as_they_are() -> None:
    assert plain("judge 0.95 (draft length 16), 3%") == "judge 0.95 (draft length 16), 3%"
    assert plain("see www.x.org or http://x") == r"see www\.x\.org or http\://x"  # no bare links
