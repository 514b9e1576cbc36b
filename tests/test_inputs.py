"""Files are opened for reading in one place: regular ones of a bounded size. Nothing hangs or fills the memory."""

from __future__ import annotations

import ast
import gzip
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest

import judge_decoding
from commands import Run, ends_in_one_sentence
from judge_decoding import Case, JudgeDecodingError, JudgeHead, read_cases, write_cases
from judge_decoding.io import files, inputs
from judge_decoding.io.files import lines, read_bytes, read_text
from judge_decoding.io.questions import file_rows
from judge_decoding.loading.models import load_model, load_tokenizer

SOURCES = Path(judge_decoding.__file__).parent
CASE = Case(question="q", answer="1 + 1 = 3", correct=False)


# What is no file


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def link_to_zero(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def listening(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # a socket's path must be short
        server.bind(path.name)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


NO_FILES: dict[str, Callable[[Path], Path]] = {
    "named pipe": pipe, "device": link_to_zero, "socket": listening, "folder": folder,
}  # fmt: skip


@pytest.fixture(params=NO_FILES)
def no_file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    monkeypatch.chdir(tmp_path)
    return request.param, NO_FILES[request.param](tmp_path / "in.jsonl")


def test_what_is_no_file_is_not_read(no_file: tuple[str, Path]) -> None:
    kind, path = no_file
    readers: tuple[Callable[[], object], ...] = (
        lambda: read_text(path, "the thing"), lambda: read_bytes(path, "the thing"),
        lambda: list(lines(path, "the thing")), lambda: list(file_rows(path, lambda _: None)), lambda: read_cases(path),
    )  # fmt: skip
    for read in readers:
        with pytest.raises(JudgeDecodingError, match=rf"^Cannot read .* {path}: it is a {kind} and no file; give"):
            read()


COMMANDS = (
    "card {head} --results {file}",
    "court annotate {file} -o {out} --annotator a --no-browser",
    "court check {file}",
    "court collect {file} -o {out} -m reference",
    "court export {file} -f csv -o {out}",
    "court import {file} -f csv -o {out}",
    "court import {file} -f label-studio -o {out}",
    "court import {file} -f prm800k -o {out}",
    "court import {file} -f processbench -o {out}",
    "court import {file} -f prodigy -o {out}",
    "court label arithmetic {file} -o {out}",
    "court label equivalence {file} -o {out} --target reference",
    "court label likelihood {file} -o {out} --target reference --label-threshold 1",
    "court label llm {file} -m m -o {out}",
    "court merge {file} -o {out}",
    "court rethreshold {file} -o {out} --label-threshold 1",
    "court split {file} --into {out}=1",
    "court stats {file}",
    "court view {file} -o {out}",
    "evaluate --task jsonl --data {file} --target reference -o {out}",
    "evaluate --task arithmetic --trained-on {file} --target reference -o {out}",
    "fit --prompts {file} --target reference -o {out}",
    "plan {file}.yaml",
    "report {file} -o {out}",
    "report {cases} --sweep {file} -o {out}",
    "score {file} --target reference",
    "sweep --task jsonl --data {file} --target reference -o {out}",
    "train reference {file} -o {out}",
    "train reference {cases} -o {out} --aim accuracy --calibrate-on {file} --draft reference-draft",
)


# Each command reads through what the test above tries with all kinds, so one kind each is enough.
@pytest.mark.parametrize(("command", "kind"), list(zip(COMMANDS, cycle(["named pipe", "device"]), strict=False)))
def test_no_command_reads_what_is_no_file(
    run: Run, head: JudgeHead, tmp_path: Path, command: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    file, cases = tmp_path / "in.jsonl", tmp_path / "cases.jsonl"
    for path in (file, file.with_name("in.jsonl.yaml")):
        NO_FILES[kind](path)
    write_cases(cases, [CASE])
    head.save_pretrained(tmp_path / "head")
    before = sorted(tmp_path.rglob("*"))
    args = command.format(file=file, cases=cases, head=tmp_path / "head", out=tmp_path / "out")
    ends_in_one_sentence(run(*args.split()), f": it is a {kind} and no file; give a file.")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"])
@pytest.mark.parametrize("kind", ["named pipe", "device"])
def test_a_models_folder_has_files(folders: dict[str, Path], tmp_path: Path, name: str, kind: str) -> None:
    for file in folders["target"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).unlink(missing_ok=True)
    NO_FILES[kind](tmp_path / name)
    for load in (load_model, load_tokenizer):
        with pytest.raises(JudgeDecodingError, match=f"it is a {kind} and no file"):
            load(str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "results.json"])
@pytest.mark.parametrize("kind", ["named pipe", "device"])
def test_a_heads_folder_has_files(head: JudgeHead, tmp_path: Path, name: str, kind: str) -> None:
    head.save_pretrained(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    NO_FILES[kind](tmp_path / name)
    if name == "results.json":  # what is no file is no results file
        assert JudgeHead.from_pretrained(tmp_path).config == head.config
        return
    with pytest.raises(JudgeDecodingError, match=f"it is a {kind} and no file"):
        JudgeHead.from_pretrained(tmp_path)


def test_a_model_with_a_million_layers_is_refused_at_once(folders: dict[str, Path], tmp_path: Path) -> None:
    for file in folders["target"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    for changed in ({"num_hidden_layers": 10**6}, {"text_config": {"num_layers": 10**6}}):
        (tmp_path / "config.json").write_text(json.dumps(config | changed))
        with pytest.raises(JudgeDecodingError, match=r"layers of .*json is 1000000; it must be at most 10,000\."):
            load_model(str(tmp_path))


# Pipes that are open already


def through(program: str, *command: str, **options: object) -> str:
    """What a program of Python says that is run in bash with ``command`` around it."""
    script = f'{sys.executable} -c "$1" {" ".join(command)}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", program], capture_output=True, text=True, timeout=60, check=False, **options
    )  # type: ignore[call-overload]
    return str(done.stdout + done.stderr)


READ = """
import sys
from pathlib import Path
from judge_decoding import JudgeDecodingError
from judge_decoding.io import inputs
from judge_decoding.io.files import lines
inputs.SILENCE = 1.0
try:
    print([text for _, text in lines(Path(sys.argv[1]), "the thing")])
except JudgeDecodingError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "command",
    [
        ("<(printf 'a\\nb\\n')",),
        ("/dev/stdin", "< <(printf 'a\\nb\\n')"),
        ("/dev/fd/0", "< <(printf 'a\\n'; sleep 0.1; printf 'b\\n')"),
        ("<(printf 'a\\nb\\n' | gzip)",),
        ("/dev/stdin", "<<< $'a\\nb'"),
    ],
)
def test_a_pipe_of_the_shell_is_read(command: tuple[str, ...]) -> None:
    assert through(READ, *command) == "['a', 'b']\n"


def test_a_silent_pipe_is_not_waited_for_without_end() -> None:
    told = through(READ, "<(sleep 5 2>/dev/null)")
    assert "nothing has come through it for 1 seconds; check the path." in told


def test_a_terminal_is_no_file() -> None:
    ours, theirs = os.openpty()
    try:
        told = through(READ, "/dev/stdin", stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert told == "Cannot read the thing /dev/stdin: it is a device and no file; give a file.\n"


def test_a_pipe_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = os.pipe()

    def write() -> None:
        try:
            while True:
                os.write(ends[1], b"x" * 2**16 + b"\n")
        except BrokenPipeError:
            os.close(ends[1])

    writer = threading.Thread(target=write)
    writer.start()
    monkeypatch.setattr(files, "MOST", 2**20)
    try:
        with pytest.raises(JudgeDecodingError, match="it has more than 1 MiB"):
            list(lines(Path(f"/dev/fd/{ends[0]}"), "the thing"))
        with pytest.raises(JudgeDecodingError, match="it has more than 2 MiB"):
            read_bytes(Path(f"/dev/fd/{ends[0]}"), "the thing", 2**21)
    finally:
        os.close(ends[0])
        writer.join()


# Sizes


@pytest.fixture
def little_memory() -> Iterator[None]:
    """What this process may have more than it has: a quarter of a gigabyte."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("content", [b"\0" * 2**20, b"\n" * 2**20, b"{}\n" * 2**18, b"x\n" + b"\0" * 2**20])
def test_what_unpacks_to_gigabytes_is_refused(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand times its size, without ever being in memory: the bound is twice what there is of that."""
    monkeypatch.setattr(files, "MOST", 2**29)
    monkeypatch.setattr(files, "LINES", 10**6)
    path = tmp_path / "bomb.gz"
    packed = gzip.compress(content, 9)
    path.write_bytes(packed * (2**32 // len(content)))
    with pytest.raises(JudgeDecodingError, match=r"it has more than [\d,]+ (MiB|lines)"):
        for _ in lines(path, "the thing", lambda _: None):
            pass


@pytest.mark.usefixtures("little_memory")
def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)  # all zeros, and no room on the disk
    for read, most in (
        (lambda: list(lines(path, "the thing")), "2,048"), (lambda: read_text(path, "the thing"), "256"),
    ):  # fmt: skip
        with pytest.raises(JudgeDecodingError, match=rf"large: it has more than {most} MiB; divide it\."):
            read()


def test_a_text_that_packs_well_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl.gz"
    path.write_bytes(gzip.compress((CASE.model_dump_json() + "\n").encode() * 100_000))
    assert len(read_cases(path)) == 100_000


def test_a_long_line_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    path, told = tmp_path / "cases.jsonl", list[str]()
    good = CASE.model_dump_json() + "\n"
    path.write_text(good + json.dumps({"question": "q", "answer": "w " * 20_000_000}) + "\n" + good)
    assert read_cases(path, on_bad=told.append) == [CASE, CASE]
    assert told == [f"{path}, line 2 is longer than 8 MiB; divide or remove it."]
    with pytest.raises(JudgeDecodingError, match="line 2 is longer than 8 MiB"):
        read_cases(path)


@pytest.mark.parametrize("length", [inputs.LINE - 1, inputs.LINE, inputs.LINE + 1, inputs.LINE + 2])
@pytest.mark.parametrize("end", ["\n", "\nb", ""])
def test_the_longest_line(tmp_path: Path, length: int, end: str) -> None:
    (tmp_path / "x").write_text("a" * length + end)
    told: list[str] = []
    found = list(lines(tmp_path / "x", "the thing", told.append))
    wanted = [(1, length)] if length <= inputs.LINE else []
    assert [(number, len(text)) for number, text in found] == wanted + ([(2, 1)] if end == "\nb" else [])
    assert len(told) == 1 - len(wanted)


def test_damaged_gzip(tmp_path: Path) -> None:
    content = gzip.compress(b"a\n" * 1000)
    for damaged in (content[:-9], content[:20] + b"\xff" * 8 + content[28:], content + b"more", b"\x1f\x8b"):
        (tmp_path / "x.gz").write_bytes(damaged)
        with pytest.raises(JudgeDecodingError, match="damaged gzip"):
            list(lines(tmp_path / "x.gz", "the thing"))


def test_lines_are_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n  \n\xe2\x80\xa8two\x0b\nthree")
    assert list(lines(path, "the thing")) == [(1, "one\r"), (4, "\u2028two\x0b"), (5, "three")]
    path.write_bytes(b"a\n\xff\nb\n")
    told: list[str] = []
    assert list(lines(path, "the thing", told.append)) == [(1, "a"), (3, "b")]
    assert told == [f"{path}, line 2 is not UTF-8 text; convert or remove it."]
    path.write_bytes("a\n".encode("utf-16"))
    with pytest.raises(JudgeDecodingError):
        list(lines(path, "the thing"))


# The one place

OWN = {
    "io/isolation.py": "a program of this package",
    "io/sandbox_child.py": "its standard input, and nothing",
    "static/store.py": "compiled code, whose content its name has",
    "static/compiling.py": "sources of this package and of models",
    "labels/llm.py": "a text of this package",
    "serving/recipe.py": "recipes of this package",
    "reference/wide.py": "weights of this package",
    "training/features.py": "shards whose hash was just found right",
    "training/draft_training.py": "its own checkpoints",
    "inputs.py": "the place itself",
}
"""Who opens what a user cannot put anything into."""
READERS = {"read_text", "read_bytes", "load_file", "safe_open", "GzipFile", "fdopen"}
FILE_READERS = {("json", "load"), ("yaml", "load"), ("torch", "load"), ("np", "load"), ("pickle", "load")}


def opened(tree: ast.Module) -> Iterator[str]:
    """The calls in a module that open a file for reading, or may."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name):
            if function.id == "open" and may_read(node, 1):
                yield "open"
            if function.id in {"load_file", "safe_open"}:
                yield function.id
        elif isinstance(function, ast.Attribute):
            owner = function.value.id if isinstance(function.value, ast.Name) else ""
            if (owner, function.attr) in FILE_READERS or function.attr in READERS - {"GzipFile", "fdopen"}:
                yield f"{owner}.{function.attr}"
            if function.attr == "open" and owner not in {"os", "webbrowser", "target"} and may_read(node, 0):
                yield f"{owner}.open"
            if owner in {"gzip", "bz2", "lzma", "zipfile"} and function.attr in {"open", "GzipFile", "decompress"}:
                yield f"{owner}.{function.attr}"
            if owner == "os" and function.attr == "open" and "O_WRONLY" not in ast.dump(node):
                yield "os.open"


def may_read(node: ast.Call, place: int) -> bool:
    """Whether the mode of a call of ``open`` is not one for writing or adding."""
    given = [one.value for one in node.keywords if one.arg == "mode"] or node.args[place : place + 1]
    if not given:
        return True
    modes = [one.value for one in ast.walk(given[0]) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return not modes or any(mode[0] not in "wax" for mode in modes if mode)


def test_only_one_place_opens_files_for_reading() -> None:
    found = {
        path.relative_to(SOURCES).as_posix(): sorted(calls)
        for path in SOURCES.rglob("*.py")
        if (calls := [*opened(ast.parse(path.read_text(encoding="utf-8")))])
    }
    allowed = {name for name in found if name.endswith(tuple(OWN))}
    assert len(allowed) <= len(OWN)
    rest = {name: calls for name, calls in found.items() if name not in allowed}
    assert rest == {
        # The list of its own public names.
        "__init__.py": [".read_text"],
        # What is written is given on from a file of our own; what is packed is unpacked as it comes.
        "io/files.py": ["gzip.GzipFile", "temporary.open"],
        # Locked and added to; read by `read_bytes`.
        "labelling/annotate/storage.py": ["os.open"],
        "io/locks.py": ["os.open", "os.open"],
        # Only a file that nobody else can have written, and of a bounded size.
        "labelling/annotate/server.py": ["os.open"],
    }


@pytest.mark.parametrize(
    "source",
    ["open('x')", "open(p, mode)", "p.open()", "p.open('rb')", "p.read_text()", "(a / b).read_bytes()", "json.load(f)",
     "gzip.open(p)", "load_file(p)", "safe_open(p, 'pt')", "os.open(p, os.O_RDONLY)", "torch.load(p)"],
)  # fmt: skip
def test_what_opens_is_seen(source: str) -> None:
    assert [*opened(ast.parse(source))]


@pytest.mark.parametrize(
    "source", ["p.open('w')", "p.open('ab' if x else 'wb')", "open(p, 'w')", "os.open(p, O_WRONLY)"]
)
def test_what_only_writes_is_passed_over(source: str) -> None:
    assert not [*opened(ast.parse(source))]
