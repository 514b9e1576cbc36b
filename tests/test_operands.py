"""A first operand can stand for an option; former names of options are errors like any other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from commands import Run, commands, find
from judge_decoding.cli.command import OPERANDS, spell_out

SPELLED_OUT = [
    # command, words, all options written
    ("generate", "t p", "--target t p"),
    ("generate", "--seed 3 t -- -p", "--seed 3 --target t -- -p"),
    ("generate", "-- t p", "--target=t -- p"),
    ("generate", "p --target t", "p --target t"),
    ("generate", "--json --no-chat t p", "--json --no-chat --target t p"),  # flags, and their opposites, have no value
    ("generate", "prompt p", "--target prompt p"),  # also the name of an operand
    ("train", "t c d -o out", "--target t c d -o out"),
    ("draft", "-o out t", "-o out --target t"),
    ("draft", "-oout t", "-oout --target t"),
    ("draft", "--out=out t", "--out=out --target t"),
    ("info", "head", "--judge head"),
    ("card", "head --results r", "--judge head --results r"),
    ("push", "head me/judge --yes", "--judge head me/judge --yes"),
    ("fit", "t", "t"),
    ("court import", "mr-gsm8k rows.jsonl -o out", "--format mr-gsm8k rows.jsonl -o out"),
    ("court import", "rows.jsonl -f csv -o out", "rows.jsonl -f csv -o out"),
    ("court import", "rows.csv -fcsv -o out", "rows.csv -fcsv -o out"),
    ("court export", "prodigy --format csv -o out", "prodigy --format csv -o out"),
    # One operand is the one that the command cannot do without.
    ("train", "c -o out", "c -o out"),
    ("train", "-o out -- c", "-o out -- c"),
    ("train", "-o out -- t c", "-o out --target=t -- c"),
    ("push", "me/judge --yes", "me/judge --yes"),
    ("court import", "rows.csv -o out", "rows.csv -o out"),
]


@pytest.mark.parametrize(("command", "words", "out"), SPELLED_OUT, ids=[f"{c} {w}" for c, w, _ in SPELLED_OUT])
def test_the_option_is_written_for_the_operand(command: str, words: str, out: str) -> None:
    assert " ".join(spell_out(command, words.split(), find(command.split())[0].params)) == out


def test_the_table_names_commands_and_options_that_exist() -> None:
    assert OPERANDS.keys() <= {" ".join(words) for words, _ in commands()}
    for command, names in OPERANDS.items():
        known = {name for one in find(command.split())[0].params for name in one.opts}
        assert set(names) <= known


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("court merge cases.jsonl --output all.jsonl", r"No such option:? '?--output\b"),
        ("demo --problems 3", r"No such option:? '?--problems\b"),
        ("demo --json figures", "unexpected extra argument"),
        ("fit --points 2", r"No such option:? '?--points\b"),
        ("generate t p --draft-length fixed", r"No such option:? '?--draft-length\b"),
        ("court rethreshold cases.jsonl --threshold 1", r"No such option:? '?--threshold\b"),
    ],
)
def test_a_former_name_is_an_error_in_one_sentence(run: Run, words: str, says: str) -> None:
    code, out, err = run(*words.split())
    assert (code, out) == (2, "")
    assert re.search(says, err)  # as the lowest and the newest typer put it
    assert "Traceback" not in err
    assert "Warning" not in err


@pytest.mark.parametrize(
    ("words", "missing"),
    [("train cases.jsonl -o head", "--target"), ("push me/judge", "--judge"), ("court import a.csv -o b", "--format")],
)
def test_the_option_that_is_missing_is_named(run: Run, words: str, missing: str) -> None:
    code, out, err = run(*words.split())
    assert (code, out) == (2, "")
    assert f"Missing option '{missing}'" in err


def test_a_file_of_options_can_have_the_operand(run: Run, tmp_path: Path) -> None:
    """Then the only operand of the command line is the target."""
    (tmp_path / "run.yaml").write_text(f"cases: [{tmp_path / 'none.jsonl'}]\nout: {tmp_path / 'head'}\n")
    err = run("train", tmp_path / "target", "--config", tmp_path / "run.yaml")[2]
    assert "Missing" not in err
    assert "none.jsonl" in err
