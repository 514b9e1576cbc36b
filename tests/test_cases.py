"""TokenCourt files: what is written comes back, and a bad line is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from judge_decoding import Case, JudgeDecodingError, read_cases, write_cases

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    answer = draw(TEXT)
    place = st.integers(0, len(answer))
    spans = draw(st.lists(st.tuples(place, place).map(sorted).map(tuple), max_size=3))
    return Case(
        question=draw(TEXT),
        answer=answer,
        errors=tuple(spans),  # type: ignore[arg-type]
        ended=draw(st.booleans()),
        source=draw(TEXT),
        writer=draw(TEXT),
        annotator=draw(TEXT),
        seconds=draw(st.none() | st.floats(0, 1e6)),
        reference=draw(TEXT),
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cases") / "court.jsonl"


@given(written=st.lists(cases(), min_size=1, max_size=5))
@example(written=[Case(question="line\u2028separator", answer="next\x85line\x0bpage\x0c\r\n")])
def test_cases_come_back(path: Path, written: list[Case]) -> None:
    write_cases(path, written)
    assert read_cases(path) == written
    assert path.read_bytes().count(b"\n") == len(written)


def test_fields_left_at_their_defaults_are_not_written(path: Path) -> None:
    write_cases(path, [Case(question="q", answer="abc", errors=((1, 2),))])
    assert json.loads(path.read_text()) == {"question": "q", "answer": "abc", "errors": [[1, 2]]}


def test_blank_lines_and_other_line_ends_are_read(path: Path) -> None:
    path.write_bytes(b'{"question": "a", "answer": "b"}\r\n\r\n\n  {"question": "c", "answer": "d"}')
    assert [case.question for case in read_cases(str(path))] == ["a", "c"]


@pytest.mark.parametrize(
    ("line", "phrase"),
    [
        ("{", "Invalid JSON"),
        ("5", "Input should be an object"),
        ('{"question": "a"}', "answer: Field required"),
        ('{"question": "a", "answer": 5}', "answer: Input should be a valid string"),
        ('{"question": "a", "answer": "b", "extra": 1}', "extra: Extra inputs"),
        ('{"question": "a", "answer": "b", "errors": [[0, 2]]}', "outside the answer of 1 characters"),
        ('{"question": "a", "answer": "b", "errors": [[-1, 0]]}', "outside the answer"),
        ('{"question": "a", "answer": "bcd", "errors": [[2, 1]]}', "outside the answer"),
        ('{"question": "a", "answer": "b", "errors": [[0]]}', "errors.0.1: Field required"),
    ],
)
def test_a_bad_line_is_named_by_its_number(path: Path, line: str, phrase: str) -> None:
    path.write_text('{"question": "a", "answer": "b"}\n\n' + line + "\n")
    with pytest.raises(JudgeDecodingError, match=r"line 3 is not a case") as refusal:
        read_cases(path)
    assert phrase in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_cases_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JudgeDecodingError, match="has no cases"):
        read_cases(path)


def test_a_missing_or_foreign_file_is_refused(path: Path) -> None:
    with pytest.raises(JudgeDecodingError, match="Cannot read the data set"):
        read_cases(path.parent / "nothing.jsonl")
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    with pytest.raises(JudgeDecodingError, match="not UTF-8"):
        read_cases(path)


@given(content=st.binary(max_size=100))
def test_any_bytes_are_refused_in_a_sentence(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JudgeDecodingError):
        read_cases(path)


@pytest.mark.parametrize("span", [(0, 4), (-1, 1), (2, 1), (4, 4)])
def test_an_error_span_outside_the_answer_is_refused(span: tuple[int, int]) -> None:
    with pytest.raises(ValidationError, match="outside the answer"):
        Case(question="q", answer="abc", errors=(span,))


@pytest.mark.parametrize("span", [(0, 3), (0, 0), (3, 3), (1, 2)])
def test_an_error_span_may_touch_the_ends(span: tuple[int, int]) -> None:
    assert Case(question="q", answer="abc", errors=(span,)).errors == (span,)


def test_nothing_is_written_when_a_case_fails_on_the_way(path: Path) -> None:
    write_cases(path, [Case(question="old", answer="")])

    def broken() -> object:
        yield Case(question="new", answer="")
        raise RuntimeError("the source of cases failed")

    with pytest.raises(RuntimeError):
        write_cases(path, broken())  # type: ignore[arg-type]
    assert [case.question for case in read_cases(path)] == ["old"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
