"""One rule for what every command writes: what is there stays, no input is lost, and nothing begins before that."""

from __future__ import annotations

import os
import socket
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from commands import Run, commands, is_one_sentence
from judge_decoding import Case, JudgeDecodingError, write_cases
from judge_decoding.io.resume import Unfinished, written_before
from judge_decoding.labelling.annotate.storage import token_path
from judge_decoding.training.draft_options import FILES

HEAD = ("config.json", "model.safetensors", "README.md", "roc.svg", "results-2.json", "custom_generate/generate.py")
EVALUATED = ("results.json", "samples.jsonl", "spec_bench.jsonl", "grades.jsonl")
SWEPT = ("results.json", "answers.jsonl", "sweep.html", "sweep.svg", "grades.jsonl")
TASK = "--task jsonl --data {file} --target {target}"


@dataclass(frozen=True)
class Writes:
    """How a command is called, and what it writes.

    Attributes:
        args: its arguments; {file} is a file it reads, {target} a folder it reads, {out} where it writes.
        files: what it writes there.
        options: its options that take a path or a path with more, but for those that are read.
        reads: those that are read.
    """

    args: str
    files: tuple[str, ...]
    options: tuple[str, ...]
    reads: tuple[str, ...] = ()


TABLE = {
    "generate": Writes("{target} one --out {out}/a.jsonl", ("a.jsonl",), ("out",)),
    "demo": Writes("--out {out}/a.json --html {out}/b.html", ("a.json", "b.html"), ("out", "html")),
    # It adds to its file, which may be there.
    "play": Writes("--pair {target},{target} --port 0", (), ("cases",)),
    "draft": Writes("{target} --prompts {file} -o {out}", FILES, ("out",), ("prompts",)),
    "fit": Writes(
        "--prompts {file} --target {target} --draft {target} -o {out}", HEAD, ("out",), ("prompts", "calibrate_data")
    ),
    "evaluate": Writes(f"{TASK} -o {{out}}", EVALUATED, ("out",), ("data", "trained_on")),
    "sweep": Writes(f"{TASK} --draft {{target}} -o {{out}}", SWEPT, ("out",), ("data", "trained_on")),
    "bench": Writes(f"{TASK} -o {{out}}", ("results.json", "bench.md"), ("out",), ("data",)),
    "report": Writes("{file} -o {out}/a.html", ("a.html",), ("out",), ("sweep",)),
    "score": Writes("{file} --target {target} --html {out}/a.html", ("a.html",), ("html",)),
    "train": Writes("{target} {file} -o {out}", HEAD, ("out", "cache"), ("calibrate_data",)),
    "card": Writes("", (), (), ("results",)),  # it writes into the head that it reads: see test_card_files.py
    "court starter": Writes("-o {out}/a.jsonl", ("a.jsonl",), ("out",)),
    "court collect": Writes("{file} -m {target} -o {out}/a.jsonl", ("a.jsonl",), ("out",)),
    "court annotate": Writes("{file} -o {out} --annotator a", ("cases-a.jsonl", token_path(Path()).name), ("out",)),
    "court label arithmetic": Writes(
        "{file} -o {out}/a.jsonl --aside {out}/b.jsonl", ("a.jsonl", "b.jsonl"), ("out", "aside")
    ),
    "court label likelihood": Writes(
        "{file} -o {out}/a.jsonl --target {target} --draft {target} --label-threshold 1", ("a.jsonl",), ("out",)
    ),
    "court label equivalence": Writes(
        "{file} -o {out}/a.jsonl --target {target} --draft {target}", ("a.jsonl",), ("out",)
    ),
    "court label llm": Writes(
        "{file} -m m -o {out}/a.jsonl --aside {out}/b.jsonl", ("a.jsonl", "b.jsonl"), ("out", "aside"), ("compare",)
    ),
    "court check": Writes("{file} -o {out}/a.jsonl", ("a.jsonl",), ("out",)),
    "court view": Writes("{file} -o {out}/a.html", ("a.html",), ("out",)),
    "court split": Writes(
        "{file} --into {out}/a.jsonl=0.5 --into {out}/b.jsonl=0.5", ("a.jsonl", "b.jsonl"), ("into",)
    ),
    "court merge": Writes("{file} {file} -o {out}/a.jsonl", ("a.jsonl",), ("out",)),
    "court rethreshold": Writes("{file} -o {out}/a.jsonl --label-threshold 1", ("a.jsonl",), ("out",)),
    "court import": Writes("{file} -f csv -o {out}/a.jsonl", ("a.jsonl",), ("out",)),
    "court export": Writes("{file} -f csv -o {out}/a.csv", ("a.csv",), ("out",)),
}
WRITTEN = [(name, file) for name, row in TABLE.items() for file in row.files]
SEVERAL = [name for name, row in TABLE.items() if len(row.files) == 2 and len(row.args.split("{out}")) == 3]
READING = [(name, file) for name, file in WRITTEN if "{file}" in TABLE[name].args]
FROM_FOLDER = [(name, file) for name, file in WRITTEN if "{target}" in TABLE[name].args and "/" not in file]


def path_options(function: Any) -> set[str]:
    """The options of a command that take a path, and ``into``, which takes a path and more."""
    found = set()
    for name, hint in typing.get_type_hints(function, include_extras=True).items():
        kind, *more = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        if any(type(one).__name__ == "OptionInfo" for one in more) and ("Path" in str(kind) or name == "into"):
            found.add(name)
    return found


def test_the_table_has_every_command_that_writes() -> None:
    found = {" ".join(words): options for words, function in commands() if (options := path_options(function))}
    assert found == {name: {*row.options, *row.reads} for name, row in TABLE.items()}
    assert {"generate", "court split", "evaluate"} <= found.keys()


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """A file that is read, a folder that is read, and the folder that is written to."""
    file, out = tmp_path / "in.jsonl", tmp_path / "out"
    write_cases(file, [Case(question="q", answer="1 + 1 = 3", correct=False)])
    (tmp_path / "target").mkdir()
    out.mkdir()
    return {"file": file, "target": tmp_path / "target", "out": out}


def call(run: Run, name: str, places: dict[str, Path], *more: object) -> tuple[int, str, str]:
    return run(*name.split(), *(part.format(**places) for part in TABLE[name].args.split()), *more)


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def refused(result: tuple[int, str, str], phrase: str, folder: Path, before: dict[Path, bytes | None]) -> None:
    is_one_sentence(result, phrase)
    assert contents(folder) == before


@pytest.mark.parametrize(("name", "file"), WRITTEN)
def test_what_is_there_stays(run: Run, places: dict[str, Path], tmp_path: Path, name: str, file: str) -> None:
    there = places["out"] / file
    there.parent.mkdir(exist_ok=True)
    there.write_text("a person's")
    refused(call(run, name, places), f"{there} already exists; choose another", tmp_path, contents(tmp_path))


@pytest.mark.parametrize(("name", "file"), READING)
@pytest.mark.parametrize("link", ["none", "symbolic", "hard"])
def test_an_input_is_not_replaced(
    run: Run, places: dict[str, Path], tmp_path: Path, name: str, file: str, link: str
) -> None:
    there = places["out"] / file
    there.parent.mkdir(exist_ok=True)
    if link == "symbolic":
        there.symlink_to(places["file"])
    elif link == "hard":
        os.link(places["file"], there)
    else:
        places["file"].rename(there)
        places["file"] = places["out"] / ".." / "out" / file
    before = contents(tmp_path)
    refused(call(run, name, places, "--overwrite"), f"{there} is read from", tmp_path, before)


@pytest.mark.parametrize(("name", "file"), FROM_FOLDER)
def test_a_file_of_a_model_is_not_replaced(
    run: Run, places: dict[str, Path], tmp_path: Path, name: str, file: str
) -> None:
    there = places["out"] / file
    there.parent.mkdir(exist_ok=True)
    there.write_text("weights")
    places["target"].rmdir()
    places["target"].symlink_to(places["out"])
    refused(call(run, name, places, "--overwrite"), "which is read from", tmp_path, contents(tmp_path))


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("link", ["hard", "symbolic", "to nothing"])
def test_two_outputs_are_two_files(run: Run, places: dict[str, Path], tmp_path: Path, name: str, link: str) -> None:
    one, other = (places["out"] / file for file in TABLE[name].files)
    if link != "to nothing":
        one.write_text("")
    (os.link if link == "hard" else os.symlink)(one, other)
    refused(call(run, name, places, "--overwrite"), "are the same file", tmp_path, contents(tmp_path))


@pytest.mark.parametrize(("name", "file"), [(name, row.files[0]) for name, row in TABLE.items() if row.files])
def test_what_cannot_be_written_shows_first(
    run: Run, places: dict[str, Path], tmp_path: Path, name: str, file: str
) -> None:
    places["out"] = places["file"] / "below"
    refused(call(run, name, places), "Cannot write", tmp_path, contents(tmp_path))


def test_the_same_file_by_other_names(court: Run, places: dict[str, Path], tmp_path: Path) -> None:
    before, file, out = contents(tmp_path), places["file"], places["out"]
    same = court("split", file, "--into", f"{out}/s=0.5", "--into", f"{out}/../out/s=0.5")
    refused(same, "are the same file", tmp_path, before)
    same = court("label", "arithmetic", file, "-o", out / "y", "--aside", out / "y")
    refused(same, "are the same file", tmp_path, before)
    part = court("label", "llm", file, "-m", "m", "-o", out / "y", "--aside", out / "y.part")
    refused(part, "are the same file", tmp_path, before)
    below = court("label", "arithmetic", file, "-o", out / "y", "--aside", out / "y" / "z")
    refused(below, "is written as a file", tmp_path, before)


def test_with_overwrite_it_is_replaced(court: Run, places: dict[str, Path]) -> None:
    out = places["out"] / "a.jsonl"
    out.write_text("old")
    assert court("merge", places["file"], "-o", out, "--overwrite")[0] == 0
    assert "1 + 1 = 3" in out.read_text()


def test_two_outputs_that_are_no_files_may_be_one(court: Run, places: dict[str, Path]) -> None:
    assert court("label", "arithmetic", places["file"], "-o", "/dev/null", "--aside", "/dev/null")[0] == 0
    assert Path("/dev/null").is_char_device()


def test_unfinished_work_wants_a_file(court: Run, places: dict[str, Path]) -> None:
    llm = court("label", "llm", places["file"], "-m", "m", "-o", "/dev/null")
    is_one_sentence(llm, "/dev/null is not a file, and unfinished work is kept beside the output")
    assert not Path("/dev/null.part").exists()


class Work(Unfinished[str, int]):
    row = TypeAdapter(tuple[str, int])


class KeptWork(Work):
    suffix = ""
    replaces = True


def test_a_stopped_run_may_replace_what_it_wrote(tmp_path: Path) -> None:
    begun = Work(tmp_path / "out", {})
    assert written_before(begun.part) == []
    begun.will_write(tmp_path / "aside")
    begun.add("a", 1)
    again = Work(tmp_path / "out", {})
    assert written_before(again.part) == [tmp_path / "aside"]
    assert again.done == {"a": 1}


def test_results_of_other_settings_are_refused_or_replaced(tmp_path: Path) -> None:
    for kind in (Work, KeptWork):
        kind(tmp_path / "out", {"seed": 1}).add("a", 1)
    with pytest.raises(JudgeDecodingError, match=r"out\.part was started with seed 1, not 2"):
        Work(tmp_path / "out", {"seed": 2})
    assert KeptWork(tmp_path / "out", {"seed": 1}).done == {"a": 1}
    kept = KeptWork(tmp_path / "out", {"seed": 2})
    assert kept.done == {}
    assert KeptWork(tmp_path / "out", {"seed": 1}).done == {"a": 1}  # as nothing has replaced it yet
    kept.add("b", 2)
    assert KeptWork(tmp_path / "out", {"seed": 2}).done == {"b": 2}
    assert Work(tmp_path / "out", {"seed": 1}).done == {"a": 1}


@pytest.mark.parametrize("line", ['{"question": "q", "cases": []}', '{"key": "a", "result": "b"}', "5", "[]"])
def test_results_in_another_form_are_not_thrown_away(tmp_path: Path, line: str) -> None:
    """Such as those of an earlier version: to compute them again without a word would waste what they took."""
    part = tmp_path / "out.part"
    part.write_text(f'{{"settings": {{}}}}\n{line}\n')
    with pytest.raises(JudgeDecodingError, match="not unfinished work of this command in this version; remove it"):
        Work(tmp_path / "out", {})
    assert line in part.read_text()


def test_kept_results_in_another_form_are_replaced(tmp_path: Path) -> None:
    """Not refused: they are read late, after other work."""
    out = tmp_path / "out"
    out.write_text('{"settings": {}}\n{"key": "a", "result": 1}\n{"question": "q", "cases": []}\n')
    kept = KeptWork(out, {})
    assert kept.done == {}
    kept.add("b", 2)
    assert KeptWork(out, {}).done == {"b": 2}


def test_settings_that_another_version_did_not_have_are_not_asked_for(tmp_path: Path) -> None:
    Work(tmp_path / "out", {"seed": 1}).add("a", 1)
    for other in ({"seed": 1, "guards": None}, {}):
        with pytest.raises(JudgeDecodingError, match="not unfinished work of this command in this version; remove it"):
            Work(tmp_path / "out", other)


def test_a_result_of_another_type_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected `int`"):
        Work(tmp_path / "out", {}).add("a", "b")  # type: ignore[arg-type]
    assert not (tmp_path / "out.part").exists()


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if "{file}" in row.args])
def test_a_start_that_is_refused_leaves_nothing(
    run: Run, places: dict[str, Path], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither unfinished work nor locks, folders or tokens; here the refusal comes from the file, or the model."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    places["out"].rmdir()
    places["out"] = places["out"] / "deep"
    for content in (b"", b"nothing\n", b"\xff\xfe"):
        places["file"].write_bytes(content)
        before = contents(tmp_path)
        code, _, err = call(run, name, places)
        assert code == 2
        assert "Error: " in err
        assert contents(tmp_path) == before


def test_an_annotation_whose_port_is_taken_leaves_nothing(court: Run, places: dict[str, Path], tmp_path: Path) -> None:
    before = contents(tmp_path)
    args = ("annotate", places["file"], "-o", tmp_path / "new" / "labels", "--annotator", "a", "--no-browser")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused(court(*args, "--port", taken.getsockname()[1]), "Cannot listen on port", tmp_path, before)
