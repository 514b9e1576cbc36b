"""Options from a file, over which the command line takes precedence; every run writes the file that repeats it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from commands import Run, find, is_one_sentence
from judge_decoding import Case, write_cases
from judge_decoding.cli.command import CONFIGURED


def test_the_commands_that_take_a_file() -> None:
    assert {name for name in CONFIGURED if any("--config" in one.opts for one in find([name])[0].params)} == CONFIGURED


def test_a_run_writes_what_repeats_it(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"question": "one two", "reference": "3"}\n', encoding="utf-8")
    options = {
        "task": "jsonl(checker=number)", "data": str(tmp_path / "mine.jsonl"), "target": str(folders["target"]),
        "draft": "prompt-lookup", "max-new-tokens": 4, "chat": False, "num_draft_tokens": 3, "stop": None,
    }  # fmt: skip
    del options["stop"]
    file, out = tmp_path / "mine.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(options), encoding="utf-8")
    code, told, err = run("evaluate", "--config", file, "--out", out, "--num-draft-tokens", 2, "--json")
    assert code == 0, err
    first = json.loads(told)
    assert (first["config"], first["rows"][-1]["num_draft_tokens"]) == ("run.yaml", 2)
    kept = yaml.safe_load((out / "run.yaml").read_text())
    assert kept == {
        **{name: value for name, value in options.items() if name != "num_draft_tokens"},
        "num-draft-tokens": 2, "out": str(out),
    }  # fmt: skip
    again = json.loads(run("evaluate", "--config", out / "run.yaml", "--json", "--overwrite")[1])
    same = ("accuracy", "tokens", "rounds", "num_draft_tokens")
    assert [[row.get(name) for name in same] for row in again["rows"]] == [
        [row.get(name) for name in same] for row in first["rows"]
    ]
    refused = run("evaluate", "--config", file, "--out", tmp_path / "o", "--no-target-alone", "--margin", 1)
    is_one_sentence(refused, "With --no-target-alone there is no use for --margin")


def test_toml_lists_and_operands(run: Run, tmp_path: Path) -> None:
    cases, file = tmp_path / "cases.jsonl", tmp_path / "run.toml"
    write_cases(cases, [Case(question="q", answer="a")])
    file.write_text(f'target = "none"\ncases = ["{cases}"]\nout = "{tmp_path}/head"\nlayers = -1\n', encoding="utf-8")
    is_one_sentence(run("train", "--config", file), "Cannot load the tokenizer none")
    is_one_sentence(run("train", "--config", file, "--target", "other"), "Cannot load the tokenizer other")


@pytest.mark.parametrize(
    ("name", "text", "phrase"),
    [
        ("a.yaml", "targte: x", "which is not an option of this command (did you mean target?)"),
        ("a.yaml", "config: b.yaml", "which is not an option"),
        ("a.yaml", "- target", "has no options"),
        ("a.yaml", "target: [a", "is not YAML"),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "is not YAML"),
        ("a.toml", "target = ", "is not TOML"),
        ("a.yaml", "target: {a: b}", "it must be a text or a number"),
        ("a.yaml", "target-alone: 3", "it must be true or false"),
        ("none.yaml", None, "Cannot read the configuration"),
    ],
)
def test_a_file_that_is_wrong(run: Run, tmp_path: Path, name: str, text: str | None, phrase: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    code, out, err = run("evaluate", "--config", tmp_path / name)
    assert (code, out) == (2, "")
    assert phrase in err
    assert "Traceback" not in err
