"""The ``court`` commands as a user meets them: files in, files and figures out, bad lines named and left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import Run, ends_in_one_sentence
from judge_decoding import Case, read_cases, write_cases


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    write_cases(
        path,
        [
            Case(question="How many?", answer="1 + 1 = 3", correct=False, writer="a"),
            Case(question="How many?", answer="1 + 1 = 2", correct=True, writer="b"),
            Case(question="And now?", answer="2 + 2 = 4, so 5", correct=False, writer="a"),
            Case(question="And then?", answer="2 + 2 = 5, so 4", correct=True, writer="a"),
        ],
    )
    return path


def test_label_by_arithmetic(court: Run, answers: Path, tmp_path: Path) -> None:
    out, aside = tmp_path / "labelled.jsonl", tmp_path / "aside.jsonl"
    code, told, err = court("label", "arithmetic", answers, "-o", out, "--aside", aside, "--json")
    assert code == 0, err
    assert json.loads(told) == {"located": 1, "right": 1, "accused_although_found_right": 1, "no_false_equation": 1}
    assert [case.errors for case in read_cases(out)] == [((8, 9),), ()]
    assert [case.question for case in read_cases(aside)] == ["And then?", "And now?"]


def test_bad_lines_are_named_and_the_good_ones_kept(court: Run, answers: Path, tmp_path: Path) -> None:
    with answers.open("ab") as file:
        file.write(b'{"question": "\xff", "answer": ""}\n' + b'{"question": "q", "answer": "a", "errors": [[5, 9]]}\n')
        file.write(b'{"question": "half of a li')
    code, _, err = court("label", "arithmetic", answers, "-o", tmp_path / "out.jsonl")
    assert code == 0
    assert "line 5 is not UTF-8" in err
    assert "line 6 is not a case" in err
    assert "line 7 is not a case" in err
    assert len(read_cases(tmp_path / "out.jsonl")) == 2


def test_many_bad_lines_are_counted(court: Run, answers: Path, tmp_path: Path) -> None:
    with answers.open("a") as file:
        file.write("{}\n" * 9)
    assert "4 more lines" in court("label", "arithmetic", answers, "-o", tmp_path / "out.jsonl")[2]


def test_arithmetic_that_finds_nothing_writes_nothing(court: Run, tmp_path: Path) -> None:
    write_cases(tmp_path / "in.jsonl", [Case(question="q", answer="a")])
    ends_in_one_sentence(
        court("label", "arithmetic", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl"), "label it another way"
    )
    assert not (tmp_path / "out.jsonl").exists()


def test_import_and_export(court: Run, answers: Path, tmp_path: Path) -> None:
    exported, back = tmp_path / "cases.csv", tmp_path / "back.jsonl"
    assert court("export", answers, "-o", exported, "-f", "csv")[0] == 0
    code, out, err = court("import", exported, "-o", back, "--format", "csv", "--template", "Q: {question}\\nA:")
    assert code == 0, err
    assert "4 cases written" in out
    assert read_cases(back)[0] == Case(question="Q: How many?\nA:", answer="1 + 1 = 3", source="csv", writer="a")


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (("import", "{file}", "-o", "{new}", "-f", "processbench"), "no cases in the format processbench"),
        (("import", "{file}", "-o", "{new}", "-f", "csv"), "no cases in the format csv"),
        (("import", "{file}", "-o", "{new}", "-f", "prodigy", "--template", "x"), "no {{question}}"),
    ],
)
def test_what_can_be_wrong_with_formats(
    court: Run, answers: Path, tmp_path: Path, args: tuple[str, ...], phrase: str
) -> None:
    places = {"file": answers, "new": tmp_path / "new", "none": tmp_path / "none", "folder": tmp_path}
    ends_in_one_sentence(court(*(arg.format(**places) for arg in args)), phrase.format())
    assert not (tmp_path / "new").exists()


def test_stats(court: Run, answers: Path, tmp_path: Path, folders: dict[str, Path]) -> None:
    found_wrong = Case(question="how MANY?", answer="good bad", errors=((5, 8),), annotator="a")
    found_right = Case(question="how MANY?", answer="good bad", annotator="b")
    write_cases(tmp_path / "test.jsonl", [found_wrong, found_right])
    code, out, err = court("stats", answers, tmp_path / "test.jsonl")
    assert code == 0, err
    assert "a and b on 1 answers" in out
    assert "questions in several files: 1" in out
    found = json.loads(court("stats", answers, tmp_path / "test.jsonl", "--json", "--tokenizer", folders["target"])[1])
    assert found["questions_in_several_files"] == {"How many?": [str(answers), str(tmp_path / "test.jsonl")]}
    part = found["files"][str(tmp_path / "test.jsonl")]
    assert part["tokens"]["correct"] == 3
    assert found["files"][str(answers)]["wrong_not_located"] == 2


def test_split_then_merge(court: Run, tmp_path: Path) -> None:
    data = [Case(question=str(i), answer=answer) for i in range(60) for answer in "ab"]
    write_cases(tmp_path / "all.jsonl", data)
    parts = [tmp_path / "train.jsonl", tmp_path / "test.jsonl"]
    args = ("split", tmp_path / "all.jsonl", "--into", f"{parts[0]}=0.7", "--into", f"{parts[1]}=0.3")
    assert court(*args)[0] == 0
    code, out, _ = court("merge", *parts, parts[0], "-o", tmp_path / "back.jsonl")
    assert code == 0
    assert "0 conflicts" in out
    assert sorted(map(repr, read_cases(tmp_path / "back.jsonl"))) == sorted(map(repr, data))
    write_cases(parts[1], [Case(question="0", answer="a", errors=((0, 1),), annotator="eve")])
    code, _, err = court("merge", tmp_path / "all.jsonl", parts[1], "-o", tmp_path / "back.jsonl", "--overwrite")
    assert "Conflict: '0': unknown []; eve [(0, 1)]" in err


def test_view(court: Run, answers: Path, tmp_path: Path, folders: dict[str, Path]) -> None:
    for more in ((), ("--tokenizer", folders["target"], "--show", "2", "--overwrite")):
        assert court("view", answers, "-o", tmp_path / "page.html", *more)[0] == 0
        assert "How many?" in (tmp_path / "page.html").read_text()


def test_check(court: Run, tmp_path: Path, folders: dict[str, Path]) -> None:
    path, good = tmp_path / "cases.jsonl", tmp_path / "good.jsonl"
    write_cases(path, [Case(question="one ", answer="good cat"), Case(question="one ", answer="zebra")])
    assert court("check", path)[:2] == (0, "2 good cases, 0 bad lines.\n")
    with path.open("a") as file:
        file.write('{"question": "cut o')
    code, out, _ = court("check", path, "--tokenizer", folders["target"], "-o", good)
    assert code == 1
    assert "line 2: The answer does not round-trip through the tokenizer" in out
    assert "line 3 is not a case" in out
    assert [case.answer for case in read_cases(good)] == ["good cat"]


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (("split", "{file}", "--into", "x"), "--into is x"),
        (("split", "{file}", "--into", "{new}=0.5"), "sum to 1"),
    ],
)
def test_what_can_be_wrong_with_data(
    court: Run, answers: Path, tmp_path: Path, args: tuple[str, ...], phrase: str
) -> None:
    places = {"file": answers, "new": tmp_path / "new", "none": tmp_path / "none", "folder": tmp_path}
    ends_in_one_sentence(court(*(arg.format(**places) for arg in args)), phrase)
    assert not (tmp_path / "new").exists()


def test_rethreshold(court: Run, answers: Path, tmp_path: Path) -> None:
    scored, out = tmp_path / "scored.jsonl", tmp_path / "out.jsonl"
    write_cases(scored, [Case(question="q", answer=f"a{i}", judged=((0, 1),), score=i) for i in range(4)])
    assert court("rethreshold", scored, "-o", out, "--label-threshold", 1)[1].startswith("4 labels, 2 wrong")
    assert [case.errors for case in read_cases(out)] == [((0, 1),), ((0, 1),), (), ()]
