"""Marks of the playground become cases in a file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from judge_decoding import Case, JudgeDecoder, JudgeDecodingError, read_cases
from judge_decoding.data.tokens import check_tokens
from judge_decoding.playground.marks import CaseFile
from judge_decoding.playground.pairs import ModelPair
from judge_decoding.playground.server import Playground
from playing import (
    answered,
    client_of,
    ids_of,
    settings,
    tiny_playground,
)
from tiny import WORDS


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    return tmp_path / "new" / "cases.jsonl"


@pytest.fixture
def client(decoder: JudgeDecoder, cases: Path) -> TestClient:
    return client_of(tiny_playground(decoder, cases))


# Marks


def test_a_mark_is_a_valid_case(client: TestClient, cases: Path, decoder: JudgeDecoder) -> None:
    name, sample = answered(client, messages=[{"role": "user", "content": "one"}], prompt=None)
    assert not cases.exists()
    reply = client.post("/mark", json={"answer": name, "verdict": "wrong", "first": 2, "last": 2, "seconds": 3.21})
    assert reply.json() == {"saved": "wrong", "errors": reply.json()["errors"], "count": 1}
    (case,) = read_cases(cases)
    pieces = [piece for event in sample["rounds"] for piece in event["pieces"]]
    ((start, end),) = case.errors
    assert case.answer == sample["text"]
    assert (case.answer[start:end], end) == (pieces[2].strip(), len("".join(pieces[:3])))
    assert (case.question, case.source, case.annotator, case.seconds) == ("user one up ", "human", "ann", 3.2)
    assert (case.writer, case.ended, case.located) == ("tiny-target", sample["finish_reason"] == "stop", True)
    assert case.token_ids is not None
    assert list(case.token_ids[-len(ids_of(sample)) :]) == ids_of(sample)
    check_tokens(case, decoder.tokenizer)


def test_marks_are_changed_and_taken_back(client: TestClient, cases: Path) -> None:
    cases.parent.mkdir()
    before = b'{"question": "q",   "answer": "a b"}\n{"question":"q2","answer":"half"}'  # no line end
    cases.write_bytes(before)
    name, sample = answered(client)
    other, _ = answered(client, prompt="red")

    def mark(answer: str, verdict: str, **more: int) -> None:
        assert client.post("/mark", json={"answer": answer, "verdict": verdict, **more}).status_code == 200

    mark(name, "wrong", first=0, last=1)
    mark(other, "right")
    assert len(read_cases(cases)) == 4
    mark(name, "wrong", first=3, last=3)
    found = read_cases(cases)
    assert len(found) == 4
    assert found[2].answer[slice(*found[2].errors[0])] == sample["text"].split()[3]
    assert (found[3].errors, found[3].located) == ((), True)
    mark(name, "none")
    mark(name, "none")
    mark(other, "none")
    assert cases.read_bytes() == before + b"\n"


def test_an_end_that_came_too_early(cases: Path, decoder: JudgeDecoder) -> None:
    ending = JudgeDecoder(decoder.target, decoder.tokenizer, decoder.draft, decoder.judge, num_draft_tokens=4)
    client = client_of(Playground({"tiny": ModelPair("tiny", ending)}, CaseFile(cases)))
    ended = next(
        (name, sample)
        for name, sample in (answered(client, prompt=word, settings=settings(max_new_tokens=200)) for word in WORDS)
        if sample["finish_reason"] == "stop"
    )
    last = len(ids_of(ended[1])) - 1
    client.post("/mark", json={"answer": ended[0], "verdict": "wrong", "first": last, "last": last})
    (case,) = read_cases(cases)
    assert case.errors == ((len(case.answer), len(case.answer)),)
    assert case.ended
    check_tokens(case, decoder.tokenizer)


def test_tokens_that_are_not_there_are_not_marked(client: TestClient, cases: Path) -> None:
    name, sample = answered(client)
    for first, last in ((0, 10_000), (3, 2), (len(ids_of(sample)), len(ids_of(sample)))):
        reply = client.post("/mark", json={"answer": name, "verdict": "wrong", "first": first, "last": last})
        assert reply.status_code == 400
    assert not cases.exists()


def test_no_line_is_lost_when_many_write(tmp_path: Path) -> None:
    """Two programs with the same file, each with several threads that add, change and remove."""
    path = tmp_path / "cases.jsonl"
    files = [CaseFile(path), CaseFile(path)]

    def work(number: int) -> None:
        file = files[number % 2]
        file.put(f"{number}", Case(question=f"{number}", answer="first"))
        file.put(f"{number}", Case(question=f"{number}", answer="second"))
        if number % 3 == 0:
            file.drop(f"{number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(24)))
    found = read_cases(path)
    assert {case.answer for case in found} == {"second"}
    assert sorted(int(case.question) for case in found) == [n for n in range(24) if n % 3]
    assert sum(file.count for file in files) == len(found)


def test_a_file_of_other_things_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a case\n")
    with pytest.raises(JudgeDecodingError, match="line 1 is not a case"):
        CaseFile(path)
    assert path.read_text() == "not a case\n"
