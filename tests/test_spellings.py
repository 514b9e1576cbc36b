"""Every option has one name; old names still work, with a warning that says the new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import Run, commands, find
from judge_decoding import Case, write_cases
from judge_decoding.cli.spellings import EVERYWHERE, OLD, OPERANDS, spelled

WORDS = {" ".join(words) for words, _ in commands()}

REWRITTEN = [
    # command, old words, new words
    ("fit", "--output head", "--out head"),
    ("court check", "cases.jsonl --output=good.jsonl --overwrite", "cases.jsonl --out good.jsonl --overwrite"),
    ("demo", "--problems 3", "--limit 3"),
    ("demo", "--json figures --seed 1", "--out figures --seed 1"),
    ("demo", "--json --seed 1", "--json --seed 1"),
    ("demo", "--seed 1 --json", "--seed 1 --json"),
    ("generate", "--target t p --json a.jsonl", "--target t p --out a.jsonl"),
    ("generate", "--target t --json=a.json p", "--target t --out a.json p"),
    ("generate", "--target t --json p", "--target t --json p"),
    ("generate", "--target t p --draft-length fixed", "--target t p --draft-schedule fixed"),
    ("draft", "--target t --layers 2", "--target t --draft-layers 2"),
    ("fit", "--points 2 --result text", "--margin 2 --checker exact"),
    ("fit", "--result number", "--checker number"),
    ("bench", "--prompts 8", "--limit 8"),
    ("report", "a.jsonl --most 3", "a.jsonl --show 3"),
    ("score", "a.jsonl --shown 3", "a.jsonl --show 3"),
    ("train", "--target t c --result choice", "--target t c --checker choice"),
    ("train", "--target t c --aim accuracy=1.5", "--target t c --aim accuracy --margin 1.5"),
    ("train", "--target t c --aim keep=0.9", "--target t c --aim keep=0.9"),
    ("court collect", "q --config main", "q --dataset-config main"),
    ("court annotate", "a --head h", "a --judge h"),
    ("court view", "c --limit 3", "c --show 3"),
    ("court rethreshold", "c --threshold -15", "c --label-threshold -15"),
    ("court label likelihood", "c --threshold -15", "c --label-threshold -15"),
    ("court label equivalence", "c --result number", "c --checker number"),
    # Operands that stand for an option, without a warning.
    ("generate", "t p", "--target t p"),
    ("generate", "--seed 3 t -- -p", "--seed 3 --target t -- -p"),
    ("generate", "-- t p", "--target=t -- p"),
    ("generate", "p --target t", "p --target t"),
    ("train", "t c d -o out", "--target t c d -o out"),
    ("draft", "-o out t", "-o out --target t"),
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


def rewritten(command: str, words: str) -> tuple[str, list[str]]:
    params = find(command.split())[0].params
    flags = {name for one in params if getattr(one, "is_flag", False) for name in one.opts}
    needed = sum(one.param_type_name == "argument" and one.required for one in params)
    found = spelled(command, words.split(), lambda name: name not in flags, needed=needed)
    return " ".join(found.words), found.notes


@pytest.mark.parametrize(("command", "old", "new"), REWRITTEN, ids=[f"{c} {o}" for c, o, _ in REWRITTEN])
def test_it_becomes_todays_spelling(command: str, old: str, new: str) -> None:
    words, notes = rewritten(command, old)
    assert words == new
    former = {**EVERYWHERE, **OLD.get(command, {})}
    told = [name for name in (word.partition("=")[0] for word in old.split()) if name in former and old != new]
    assert [note.split()[0] for note in notes] == told
    assert all(f" is now {former[note.split()[0]].new};" in note for note in notes)


def test_the_tables_name_commands_and_options_that_exist() -> None:
    assert (OLD.keys() | OPERANDS.keys()) <= WORDS
    tested = {(command, word.partition("=")[0]) for command, old, _ in REWRITTEN for word in old.split()}
    for command, table in OLD.items():
        known = {name for one in find(command.split())[0].params for name in one.opts}
        for name, old in table.items():
            assert set(old.new.split()[::2]) <= known or set(old.new.split()) & known
            assert (command, name) in tested


def test_a_command_warns_once_and_goes_on(run: Run, tmp_path: Path) -> None:
    cases = tmp_path / "cases.jsonl"
    write_cases(cases, [Case(question="q", answer="a")])
    code, out, err = run("court", "merge", cases, "--output", tmp_path / "all.jsonl")
    assert (code, out.startswith("1 cases")) == (0, True)
    assert err == "Warning: --output is now --out; the old spelling works until the next release.\n"


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
