"""``court collect`` from an OpenAI-compatible endpoint: a real server on this machine that misbehaves as told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import Run, the_sentence
from endpoint import KEY, Response, Serve, asked, completed, never, refused, said
from judge_decoding import read_cases
from judge_decoding.io import endpoint
from judge_decoding.io.endpoint import Endpoint

QUESTIONS = [f"What is {i} plus {i}?" for i in range(8)]

Collect = Callable[..., tuple[int, str, str]]


@pytest.fixture
def collect(court: Run) -> Collect:
    """Run ``judge-decoding court collect ...``; its exit code, stdout and stderr, in which the key never is."""

    def call(*args: object) -> tuple[int, str, str]:
        result = court("collect", *args)
        assert KEY not in result[1] + result[2]
        return result

    return call


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text(
        "".join(json.dumps({"question": text, "reference": str(2 * i)}) + "\n" for i, text in enumerate(QUESTIONS))
    )
    return path


def add(body: dict[str, Any], number: int) -> Response:
    """Right for even numbers, one too much for odd ones."""
    value = int(asked(body).split()[2])
    return said(f"It is {2 * value + value % 2}.")


def test_answers_sorted_right_from_wrong(collect: Collect, serve: Serve, questions: Path, tmp_path: Path) -> None:
    server, out = serve(add), tmp_path / "out.jsonl"
    code, told, err = collect(
        questions, "-o", out, "--model", "openai:some-model", "--checker", "number", "--system", "Be brief.",
        "--stop", "END", "--max-new-tokens", 77, "--json",
    )  # fmt: skip
    assert code == 0, err
    row = json.loads(told)["models"]["openai:some-model"]
    assert row == {"answers": 8, "right": 4, "wrong": 4, "unchecked": 0, "cut_off": 0, "failed": 0}
    cases = read_cases(out)
    assert [case.question for case in cases] == QUESTIONS
    assert [case.answer for case in cases] == [f" It is {2 * i + i % 2}." for i in range(8)]
    assert [case.correct for case in cases] == [True, False] * 4
    assert {case.writer for case in cases} == {"openai:some-model"}
    assert KEY not in out.read_text()
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert set(server.paths) == {"/v1/chat/completions"}
    for body in server.bodies:
        question = body["messages"][-1]["content"]
        assert body == {
            "model": "some-model", "max_tokens": 77, "temperature": 0.0, "stop": ["END"],
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}],
        }  # fmt: skip


def test_raw_prompts_samples_and_seeds(collect: Collect, serve: Serve, questions: Path, tmp_path: Path) -> None:
    server = serve(lambda body, number: completed(f" {min(number, 1)}"))
    out = tmp_path / "out.jsonl"
    args = [questions, "-o", out, "--model", "openai:m", "--raw", "--template", r"Q: {question}\nA:", "--limit", 2]
    args += ["--samples", 3, "--temperature", 0.5, "--top-p", 0.9, "--seed", 7, "--concurrency", 1, "--json"]
    code, told, err = collect(*args)
    assert code == 0, err
    assert set(server.paths) == {"/v1/completions"}
    assert {body["prompt"] for body in server.bodies} == {f"Q: {text}\nA:" for text in QUESTIONS[:2]}
    seeds = [body.pop("seed") for body in server.bodies]
    assert len(set(seeds)) == 6
    assert all(body["temperature"] == 0.5 and body["top_p"] == 0.9 for body in server.bodies)
    # Of three answers to a question two are the same.
    assert json.loads(told)["duplicates"] == 2
    assert [case.answer for case in read_cases(out)] == [" 0", " 1"] * 2
    server.bodies.clear()
    assert collect(*args, "--overwrite")[0] == 0
    assert [body["seed"] for body in server.bodies] == seeds


def test_a_chats_answer_does_not_stick_to_the_prompt(
    collect: Collect, serve: Serve, questions: Path, tmp_path: Path
) -> None:
    serve(lambda body, number: said("4."))
    for template, answer in ((r"{question}\nA:", " 4."), (r"{question}\n", "4.")):
        out = tmp_path / "out.jsonl"
        assert (
            collect(questions, "-o", out, "--model", "openai:m", "--template", template, "--limit", 1, "--overwrite")[0]
            == 0
        )
        assert read_cases(out)[0].answer == answer


@pytest.mark.slow
def test_trouble_that_passes_is_waited_out(collect: Collect, serve: Serve, questions: Path, tmp_path: Path) -> None:
    """Each question meets another trouble first; each is asked once more, and none a third time."""
    troubles = [
        refused(429, "slow down", retry_after="0.01"), refused(429, retry_after_ms="10"), refused(500), refused(503),
        Response(drop=True), Response(raw=b'{"choices": [{"mess'), Response(raw=b'{"choices": []}'),
        Response(raw=b"<html>"),
    ]  # fmt: skip

    def answer(body: dict[str, Any], number: int) -> Response:
        return troubles[QUESTIONS.index(asked(body))] if number == 0 else add(body, number)

    server, out = serve(answer), tmp_path / "out.jsonl"
    code, told, err = collect(questions, "-o", out, "--model", "openai:m", "--checker", "number")
    assert code == 0, err
    assert set(server.seen.values()) == {2}
    assert "openai:m: 8 answers, 4 right, 4 wrong" in told
    assert len(read_cases(out)) == 8


def test_retry_after_is_heeded(collect: Collect, serve: Serve, questions: Path, tmp_path: Path) -> None:
    """A wait that is longer than the client's longest is not cut short: it stops, and says so."""
    server = serve(lambda body, number: refused(429, f"You \x1b[31mare {KEY} out of quota.", retry_after="100000"))
    out = tmp_path / "out.jsonl"
    error = the_sentence(collect(questions, "-o", out, "--model", "openai:m", "--concurrency", 1))
    assert "lets no more requests through (429: You \\x1b[31mare *** out of quota)" in error
    assert "run the same command later" in error
    assert len(server.bodies) <= 2  # the second with the full number of tries, which it does not use
    assert not out.exists()


def test_one_that_fails_costs_no_others_and_is_tried_again(
    collect: Collect, serve: Serve, questions: Path, tmp_path: Path
) -> None:
    troubles = {
        1: refused(500, "oops"),
        3: refused(400, "too long"),
        4: said(None),
        6: said("", "length"),
        7: said("bad", "content_filter"),
    }
    well = threading.Event()

    def answer(body: dict[str, Any], number: int) -> Response:
        place = QUESTIONS.index(asked(body))
        return add(body, number) if well.is_set() or place not in troubles else troubles[place]

    server, out = serve(answer), tmp_path / "out.jsonl"
    args = (questions, "-o", out, "--model", "openai:m", "--retries", 0, "--concurrency", 1)
    code, told, err = collect(*args)
    assert code == 0, err
    assert "5 answers of openai:m failed, the first because the endpoint refused it (500: oops)" in err
    assert "openai:m: 3 answers, 3 unchecked, 5 failed" in told
    assert [case.question for case in read_cases(out)] == [QUESTIONS[i] for i in (0, 2, 5)]
    part = out.with_name("out.jsonl.part")
    assert part.exists()
    server.seen.clear()
    well.set()
    assert collect(*args)[0] == 0
    assert server.seen == dict.fromkeys((QUESTIONS[i] for i in troubles), 1)
    assert [case.question for case in read_cases(out)] == QUESTIONS
    assert not part.exists()


def test_a_server_that_only_fails_is_given_up(collect: Collect, serve: Serve, questions: Path, tmp_path: Path) -> None:
    server, out = serve(lambda body, number: refused(500)), tmp_path / "out.jsonl"
    args = (questions, "-o", out, "--model", "openai:m", "--retries", 0, "--concurrency", 1)
    error = the_sentence(collect(*args))
    assert "6 requests in a row failed" in error
    assert len(server.bodies) == 6
    assert not out.exists()
    # What is refused for what it is, is no fault of the server's.
    refusing = serve(lambda body, number: refused(400, "no"))
    assert "No question was answered: the endpoint refused it (400: no)." in the_sentence(collect(*args))
    assert len(refusing.bodies) == 8


@pytest.mark.parametrize(
    ("response", "phrase"),
    [
        (refused(401, f"Incorrect API key provided: {KEY}"), "refuses the key (401); set OPENAI_API_KEY"),
        (refused(403, "not for you"), "does not allow the model m (403: not for you)"),
        (refused(404, "no such model"), "has no model m, or is no such address (404: no such model)"),
        (Response(404, raw=b"<h1>Not found</h1>"), "has no model m, or is no such address (404)"),
    ],
)
def test_what_stops_everything(
    collect: Collect, serve: Serve, questions: Path, tmp_path: Path, response: Response, phrase: str
) -> None:
    server, out = serve(lambda body, number: response), tmp_path / "out.jsonl"
    assert phrase in the_sentence(collect(questions, "-o", out, "--model", "openai:m", "--concurrency", 1))
    assert len(server.bodies) == 1
    assert not out.exists()


def test_nobody_is_there(
    collect: Collect, serve: Serve, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = (questions, "-o", tmp_path / "out.jsonl", "--model", "openai:m", "--retries", 0)
    serve(add).close()
    monkeypatch.setenv("OPENAI_BASE_URL", os.environ["OPENAI_BASE_URL"].replace("127.0.0.1", f"ann:{KEY}@127.0.0.1"))
    error = the_sentence(collect(*args))
    assert "Cannot reach the endpoint http://127.0.0.1:" in error
    assert "check OPENAI_BASE_URL" in error
    assert "has no name" in the_sentence(collect(*args, "--model", "openai:"))
    assert "give one with --target" in the_sentence(collect(*args, "--chat"))
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "set OPENAI_API_KEY" in the_sentence(collect(*args))
    monkeypatch.setattr(endpoint, "find_spec", lambda name: None)
    assert "pip install 'judge-decoding[court]'" in the_sentence(collect(*args))


def test_what_is_too_long_is_no_parameter_that_is_not_known(
    collect: Collect, serve: Serve, questions: Path, tmp_path: Path
) -> None:
    long = "'max_tokens' or 'max_completion_tokens' is too large: 9. This model's maximum context length is 8 tokens."
    server = serve(lambda body, number: refused(400, long) if "3 plus" in asked(body) else completed("4"))
    args = (questions, "-o", tmp_path / "out.jsonl", "--model", "openai:m", "--raw", "--max-new-tokens", 9)
    code, _, err = collect(*args, "--concurrency", 1)
    assert code == 0, err
    assert "is too large" in err
    assert all(body["max_tokens"] == 9 for body in server.bodies)


def test_it_can_be_asked_where_a_loop_runs_already(serve: Serve) -> None:
    serve(lambda *_: said("yes"))
    told: list[str] = []

    async def cell() -> None:
        body = {"messages": [{"role": "user", "content": "Well?"}]}
        Endpoint("m").request_all([(1, body)], lambda _, reply: told.append(reply.text), never)

    asyncio.run(cell())
    assert told == ["yes"]


def test_parameters_a_server_does_not_know(collect: Collect, serve: Serve, questions: Path, tmp_path: Path) -> None:
    def picky(body: dict[str, Any], number: int) -> Response:
        if "max_tokens" in body:
            return refused(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "seed" in body:
            return refused(422, "seed: extra inputs are not permitted")
        assert body["max_completion_tokens"] == 9
        return add(body, number)

    server = serve(picky)
    args = (questions, "-o", tmp_path / "out.jsonl", "--model", "openai:m", "--max-new-tokens", 9, "--seed", 1)
    assert collect(*args, "--concurrency", 1)[0] == 0
    assert len(server.bodies) == len(QUESTIONS) + 2
    assert len(read_cases(tmp_path / "out.jsonl")) == 8


def test_so_many_at_a_time_and_no_more(serve: Serve) -> None:
    """The server answers when three requests are there, so that fewer would wait for ever, and more would show."""
    barrier = threading.Barrier(3, timeout=20)

    def answer(body: dict[str, Any], number: int) -> Response:
        barrier.wait()
        return said("yes")

    server = serve(answer)
    answers: list[str] = []
    asks = [(i, {"messages": [{"role": "user", "content": str(i)}]}) for i in range(12)]
    Endpoint("m", concurrency=3).request_all(asks, lambda _, reply: answers.append(reply.text), never)
    assert answers == ["yes"] * 12
    assert server.most_at_once == 3


@pytest.mark.slow
def test_killed_in_the_middle_it_asks_nothing_twice(
    collect: Collect, serve: Serve, questions: Path, tmp_path: Path
) -> None:
    go_on = threading.Event()

    def answer(body: dict[str, Any], number: int) -> Response:
        if QUESTIONS.index(asked(body)) >= 3 and not go_on.is_set():
            go_on.wait(30)
        return add(body, number)

    server, out = serve(answer), tmp_path / "out.jsonl"
    part = out.with_name("out.jsonl.part")
    args = ["court", "collect", str(questions), "-o", str(out), "--model", "openai:m", "--concurrency", "1",
            "--checker", "number"]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "judge_decoding.cli.main", *args], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (server.seen[QUESTIONS[3]] and part.read_bytes().count(b"\n") == 4):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    go_on.set()
    content = part.read_bytes()
    part.write_bytes(content + content.splitlines(keepends=True)[-1][:20])  # as if killed while it wrote
    code, _, err = collect(*args[2:])
    assert code == 0, err
    assert "3 of 8 answers already exist" in err
    # Only the one that was under way had to be asked again.
    assert server.seen == {text: 1 + (i == 3) for i, text in enumerate(QUESTIONS)}
    assert [case.question for case in read_cases(out)] == QUESTIONS
    assert not part.exists()


def test_a_local_model_and_an_endpoint_together(
    collect: Collect, serve: Serve, questions: Path, tmp_path: Path, folders: dict[str, Path]
) -> None:
    serve(add)
    out = tmp_path / "out.jsonl"
    args = ("--model", "reference", "--model", "openai:m", "--chat", "--limit", 2, "--max-new-tokens", 20)
    code, _, err = collect(questions, "-o", out, *args)
    assert code == 0, err
    cases = read_cases(out)
    assert [case.writer for case in cases] == ["reference", "openai:m"] * 2
    assert {case.question for case in cases} == {f"Q: {text}\nA:" for text in QUESTIONS[:2]}
