"""Other formats: what is exported comes back, what others wrote is read, and a bad row is named."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge_decoding import Case, JudgeDecodingError
from judge_decoding.labelling.formats import FORMATS
from judge_decoding.labelling.formats.steps import join, split
from test_cases import TEXT, cases


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats") / "file"


def read(name: str, path: Path, content: str | bytes | object) -> tuple[list[Case], list[str]]:
    """The cases of a file with this content, and what was told of its bad rows."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode())
    told: list[str] = []
    return FORMATS[name].read(path, told.append), told


def written_as(name: str, cases: list[Case]) -> str:
    write = FORMATS[name].write
    assert write is not None
    return write(cases)


@pytest.mark.parametrize("name", ["prodigy", "label-studio"])
@given(written=st.lists(cases(), min_size=1, max_size=4))
def test_span_formats_give_everything_back(name: str, path: Path, written: list[Case]) -> None:
    assert read(name, path, written_as(name, written)) == (written, [])


@given(written=st.lists(cases(), min_size=1, max_size=4))
def test_csv_gives_the_first_error_back(path: Path, written: list[Case]) -> None:
    found, told = read("csv", path, written_as("csv", written))
    assert not told
    for before, after in zip(written, found, strict=True):
        assert (after.question, after.answer, after.writer) == (before.question, before.answer, before.writer)
        assert (after.source, after.annotator) == (before.source or "csv", before.annotator)
        start, end = min(before.errors, default=(None, None))
        if start is None or end is None:
            assert after.errors == ()
        elif start < end:
            assert after.errors == ((start, end),)
        else:  # an empty span is marked by the letter behind it, or as the end
            assert after.errors == ((start, min(start + 1, len(before.answer))),)


@pytest.mark.parametrize("name", ["prm800k", "processbench"])
@given(written=st.lists(cases(), min_size=1, max_size=4), lines=st.lists(TEXT, min_size=2, max_size=5))
def test_step_formats_keep_which_step_is_wrong(name: str, path: Path, written: list[Case], lines: list[str]) -> None:
    separator = "\n" if name == "prm800k" else "\n\n"
    written = [*written, Case(question="q", answer=separator.join(lines), errors=((0, 1),) if lines[0] else ())]
    text = written_as(name, written)
    found, told = read(name, path, text)
    assert not told
    for before, after in zip(written, found, strict=True):
        steps, wrong = split(before, separator)
        assert (after.question, split(after, separator)[1]) == (before.question, wrong)
        whole = steps if wrong is None or name == "processbench" else steps[: wrong + 1]
        assert (after.answer, after.errors) == join(whole, wrong, separator)
    assert read(name, path, written_as(name, found))[0] == found


def test_prm800k_as_published(path: Path) -> None:
    def step(*rated: tuple[str, int], chosen: int | None = None, human: str | None = None) -> dict[str, object]:
        return {
            "completions": [{"text": text, "rating": rating, "flagged": False} for text, rating in rated],
            "human_completion": None if human is None else {"text": human, "rating": None},
            "chosen_completion": chosen,
        }

    def row(reason: str, *steps: dict[str, object]) -> str:
        return json.dumps(
            {
                "labeler": "abc", "timestamp": "2022", "is_quality_control_question": False,
                "question": {"problem": "P", "ground_truth_answer": "7", "ground_truth_solution": "s"},
                "label": {"steps": list(steps), "total_time": 1500, "finish_reason": reason},
            }
        )  # fmt: skip

    found, told = read(
        "prm800k",
        path,
        "\n".join(
            (
                row("found_error", step(("a", 1), ("z", -1), chosen=0), step(("b", -1), ("c", 0))),
                row("solution", step(("a", 1), chosen=0), step(("b", -1), human="h")),
                row("give_up", step(("a", 1), chosen=0)),
                row("found_error", step(("a", 1), chosen=0)),
            )
        ),
    )
    assert [(case.answer, case.errors, case.ended) for case in found] == [
        ("a\nb", ((2, 3),), False),
        ("a\nh", (), True),
    ]
    assert (found[0].annotator, found[0].seconds, found[0].reference) == ("abc", 1.5, "7")
    assert ["line 3 ends with give_up" in told[0], "line 4 has found_error, but no step" in told[1]] == [True, True]


def test_processbench_as_published(path: Path) -> None:
    rows = [
        {
            "id": "gsm8k-0",
            "generator": "m",
            "problem": "P",
            "steps": ["a", "bc"],
            "final_answer_correct": False,
            "label": 1,
        },
        {"problem": "P", "steps": ["a"], "label": -1},
        {"problem": "P", "steps": ["a"], "label": 1},
        {"problem": "P", "label": 1},
    ]
    found, told = read("processbench", path, rows)
    assert [(case.answer, case.errors, case.correct) for case in found] == [
        ("a\n\nbc", ((3, 5),), False),
        ("a", (), None),
    ]
    assert "item 3 has label 1, but 1 steps" in told[0]
    assert "item 4 is not a case: steps: Field required" in told[1]


def test_prodigy_rejects_and_other_labels(path: Path) -> None:
    rows = [
        {"text": "abc", "spans": [{"start": 1, "end": 2, "label": "ERROR"}, {"start": 0, "end": 1, "label": "x"}],
         "meta": {"question": "q", "elsewhere": 3}},
        {"text": "abc", "answer": "reject", "meta": {"question": "q"}},
        {"text": "abc"},
        {"text": "abc", "spans": [{"start": 1, "end": 9}], "meta": {"question": "q"}},
    ]  # fmt: skip
    found, told = read("prodigy", path, "\n".join(map(json.dumps, rows)))
    assert found == [Case(question="q", answer="abc", errors=((1, 2),), source="prodigy")]
    assert [phrase in line for phrase, line in zip(("reject", "no question", "outside"), told, strict=True)] == [
        True
    ] * 3


def test_label_studio_has_a_case_for_each_annotation(path: Path) -> None:
    def result(start: int, end: int, text: str | None = None) -> dict[str, object]:
        value = {"start": start, "end": end, "labels": ["ERROR"]} | ({} if text is None else {"text": text})
        return {"type": "labels", "value": value}

    task = {"data": {"question": "q", "answer": "x\U0001f600 bad"}}
    found, told = read(
        "label-studio",
        path,
        [
            task | {"annotations": [
                {"result": [result(4, 7, "bad")], "completed_by": {"id": 3, "email": "a@b"}, "lead_time": 2.5},
                {"result": [result(3, 6, "bad")], "completed_by": 4},
                {"result": [], "completed_by": 5},
                {"result": [], "was_cancelled": True},
            ]},
            task | {"annotations": []},
            task | {"annotations": [{"result": [result(0, 3, "bad")]}]},
        ],
    )  # fmt: skip
    assert [case.errors for case in found] == [((3, 6),), ((3, 6),), ()]
    assert [(case.annotator, case.seconds) for case in found] == [("a@b", 2.5), ("4", None), ("5", None)]
    assert "item 2 has no finished annotation" in told[0]
    assert "item 3 has a label on 'bad'" in told[1]


def test_csv_as_spreadsheets_write_it(path: Path) -> None:
    content = (
        "\ufeffquestion;answer;error;occurrence\r\nq;one, two;two;\r\nq;a a a;a;2\r\nq;fine;;\r\nq;short;<end>;\r\n"
    )
    found, told = read("csv", path, content)
    assert not told
    assert [case.errors for case in found] == [((5, 8),), ((2, 3),), (), ((5, 5),)]


FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1", "'=1", "''=1", "=")


@pytest.mark.parametrize("text", [*FORMULAS, "'tis", "''", "'", "'a=", "a=1", " =1", "1-1"])
def test_csv_has_no_formula_and_gives_every_text_back(path: Path, text: str) -> None:
    before = Case(question=text, answer=text, errors=((0, len(text)),), source=text, writer=text, annotator=text)
    written = written_as("csv", [before])
    (row,) = csv.DictReader(io.StringIO(written, newline=""))
    for name in ("question", "answer", "error", "source", "writer", "annotator"):
        assert row[name] == (f"'{text}" if text in FORMULAS else text)
        assert not row[name].startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))
    assert read("csv", path, written) == ([before], [])


def test_csv_rows_that_are_no_cases(path: Path) -> None:
    content = b'question,answer,error\nq,abc,d\nq,a a,a\nq,abc\nq,\xff,\nq,ok,\n"q,cut off'
    found, told = read("csv", path, content)
    assert [case.answer for case in found] == ["ok"]
    phrases = ("line 2 quotes 'd', which is not", "line 3 quotes 'a', which its answer has 2 times",
               "line 4 has a different number", "line 5 is not UTF-8", "line 7 is not CSV")  # fmt: skip
    assert [phrase in line for phrase, line in zip(phrases, told, strict=True)] == [True] * 5
    assert "occurrence '3'" in read("csv", path, "question,answer,error,occurrence\nq,a,a,3\nq,a,\n")[1][0]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("content", ["", "{}", "[]", "[1, 2", "question,answer\na,b\n", "\ufeff", "null", "[null]"])
def test_a_file_without_cases_is_refused(name: str, content: str, path: Path) -> None:
    with pytest.raises(JudgeDecodingError, match=r"has no (cases|column)|not complete JSON"):
        read(name, path, content)


@pytest.mark.parametrize("name", FORMATS)
@given(content=st.binary(max_size=60))
def test_any_bytes_are_refused_in_a_sentence(name: str, content: bytes, path: Path) -> None:
    with pytest.raises(JudgeDecodingError) as refusal:
        read(name, path, content)
    assert "\n" not in str(refusal.value)
