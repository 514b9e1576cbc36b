"""The command `play` and the function: pairs by name, mistakes, the address."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from commands import Run, is_one_sentence
from judge_decoding import Case, JudgeDecoder, JudgeDecodingError, play, read_cases, write_cases
from judge_decoding.cli.play import parse_pairs
from judge_decoding.playground.server import Playground
from judge_decoding.web.serving import listen
from playing import (
    answered,
    client_of,
)

# The command


def test_pairs_by_name() -> None:
    assert parse_pairs(["reference", "a/t,b/d", "mine=a/t, prompt-lookup ,c/j"]) == [
        ("reference", "reference", "reference", "reference"),
        ("t", "a/t", "b/d", None),
        ("mine", "a/t", "prompt-lookup", "c/j"),
    ]


@pytest.mark.parametrize(
    ("more", "phrase"),
    [
        (("--pair", "nowhere/at-all"), "has no draft"),
        (("--pair", "a,b,c,d"), "NAME=TARGET,DRAFT,JUDGE"),
        (("--pair", "a,,c"), "NAME=TARGET,DRAFT,JUDGE"),
        (("--pair", "reference", "--pair", "reference"), "Two pairs are called reference"),
        (("--pair", "prompt-lookup,x"), "is a drafter, not a"),
        (("--dtype", "float7"), "dtype"),
        (("--cases", "."), "it is a folder"),
    ],
)
def test_mistakes_are_one_sentence(run: Run, more: tuple[str, ...], phrase: str) -> None:
    is_one_sentence(run("play", "--no-browser", *more), phrase)


def test_without_the_extra_it_says_what_to_install(run: Run, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("judge_decoding.cli.checks.find_spec", lambda name: None)
    is_one_sentence(run("play", "--cases", tmp_path / "c.jsonl"), "judge-decoding[court]")


def test_an_input_is_no_file_of_cases(run: Run, tmp_path: Path) -> None:
    write_cases(tmp_path / "c.jsonl", [Case(question="q", answer="a")])
    pair = f"{tmp_path / 'c.jsonl'},prompt-lookup"
    is_one_sentence(run("play", "--no-browser", "--pair", pair, "--cases", tmp_path / "c.jsonl"), "c.jsonl")


def test_from_python(decoder: JudgeDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is served on the address that is told, with the decoders by name."""
    cases = tmp_path / "cases.jsonl"
    told: list[str] = []

    def served(playground: Playground, listener: socket.socket, token: str) -> None:
        assert f"http://127.0.0.1:{listener.getsockname()[1]}/?token={token}" == told[0]
        name, _ = answered(client_of(playground), settings={"pair": "mine", "max_new_tokens": 4})
        assert client_of(playground).post("/mark", json={"answer": name, "verdict": "right"}).status_code == 200

    monkeypatch.setattr("judge_decoding.playground.play.Playground.serve", served)
    assert play({"mine": decoder}, cases=cases, port=0, browser=False, started=told.append) == 1
    assert len(read_cases(cases)) == 1
    with pytest.raises(JudgeDecodingError, match="no models to play with"):
        play({}, port=0)


def test_models_are_loaded_when_file_and_port_are_known_to_be_usable(tmp_path: Path) -> None:
    loads: list[int] = []

    def load() -> dict[str, JudgeDecoder]:
        loads.append(1)
        return {}

    (tmp_path / "other.jsonl").write_text("no case\n")
    with pytest.raises(JudgeDecodingError, match=r"other\.jsonl"):
        play(load, cases=tmp_path / "other.jsonl", port=0, browser=False)
    with listen(0) as taken, pytest.raises(JudgeDecodingError, match="Cannot listen on port"):
        play(load, port=taken.getsockname()[1], browser=False)
    assert not loads
    with pytest.raises(JudgeDecodingError, match="no models to play with"):
        play(load, port=0, browser=False)
    assert loads
