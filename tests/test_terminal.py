"""What files, models and servers say is shown on a terminal and never obeyed: the one printer, and all commands."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.style import Style
from rich.table import Table
from rich.text import Text
from transformers import LlamaForCausalLM

import judge_decoding
from commands import Run, commands
from endpoint import Response, Serve, said
from judge_decoding import Case, write_cases
from judge_decoding.cli import terminal
from judge_decoding.cli.console import Terminal, progress
from judge_decoding.core.rounds import Cause, Round
from judge_decoding.report.fragment import answer_fragment
from judge_decoding.serving.recipe import packaged
from judge_decoding.visible import one_line, shown, shown_json
from samples import known
from test_outputs import TABLE
from tiny import WORDS, perturbed, random_head, word_tokenizer

MARKUP = "[red]r[/red][link=http://evil]l[/link][/nothing]"
CONTROLS = "\x1b[31m\x1b[8m\x1b[2J\x1b]52;c;ZXZpbA==\x07\x9b31m\x9d8;;x\x9c\b\r\x7f\x85"
MARKS = "\u202e\u2066\u2069\u200e\u200f\u061c\u200b\ufeff\u2060\u2028\u2029\U000e0041\u00ad\u034f\u3164"
NAME = f"n{CONTROLS}{MARKS}[red]"
"""A name for a file."""
HOSTILE = f"h{CONTROLS}\x1b]8;;http://evil\x1b\\{MARKS}{MARKUP}\ud800"
TEXT = HOSTILE.replace("\ud800", "")
"""What UTF-8 can hold of it."""


def unsafe(text: str) -> set[str]:
    """The characters that no terminal may be sent, found by their categories."""
    kinds = {"Cc", "Cf", "Zl", "Zp", "Cs"}
    return {
        sign for sign in text if sign not in "\n\t" and (unicodedata.category(sign) in kinds or sign in "\u034f\u3164")
    }


def clean(*texts: str) -> None:
    for text in texts:
        assert not unsafe(text), ascii(text)


# What is shown


def test_everything_that_cannot_be_seen_is_written_out() -> None:
    visible_marks = {chr(code) for code in (*range(0x600, 0x606), 0x6DD, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD)}
    visible_marks |= {chr(code) for code in range(0x13430, 0x13440)}  # hieroglyphs are joined by them
    for code in range(0x110000):
        if unsafe(sign := chr(code)) and sign not in visible_marks:
            assert shown(f"a{sign}b") == f"a{sign.encode('unicode_escape').decode()}b", hex(code)


@pytest.mark.parametrize("text", [
    "plain", "two\nlines\tand a tab", "naïve 数学 ✓ ⏎", "עברית العربية", "می\u200cخریم", "क्\u200dष", "\u3000",
    "a\u00a0b",
    "👩🏽\u200d🚀 ❤\ufe0f ❤\ufe0f\u200d🔥 👨\u200d👩\u200d👧 1\ufe0f\u20e3",
])  # fmt: skip
def test_what_can_be_seen_stays(text: str) -> None:
    assert shown(text) == text
    assert shown_json(text) == text


@pytest.mark.parametrize(("text", "expected"), [
    ("\x1b[31m", "\\x1b[31m"), ("\u202e", "\\u202e"), ("\U000e0041", "\\U000e0041"), ("a\u200db", "a\\u200db"),
    ("\u200dexact", "\\u200dexact"), ("x\ufe0f", "x\\ufe0f"), ("é\u200d\u200d", "é\u200d\\u200d"), ("\r\n", "\\x0d\n"),
    ("\ud83d", "\\ud83d"),
])  # fmt: skip
def test_how_it_is_written_out(text: str, expected: str) -> None:
    assert shown(text) == expected.replace("\\x0d", "\\r")


@given(st.text() | st.text(alphabet=HOSTILE))
def test_shown_twice_is_shown_once_and_json_stays_the_same_value(text: str) -> None:
    clean(one_line(text).replace("\u200d", "").replace("\u200c", ""))
    assert shown(shown(text)) == shown(text)
    written = json.dumps({text: [text]}, ensure_ascii=False, indent=2)
    assert json.loads(shown_json(written)) == json.loads(written)


# One way out


SRC = Path(judge_decoding.__file__).parent
OTHERS = {
    "io/files.py": {"sys.stdout"},  # flushes before it writes to the same descriptor
    "cli/main.py": {"sys.stdout"},  # replaced when its reader is gone
    "cli/console.py": {"rich.console.Console", "sys.stdout", "sys.stderr"},
    "cli/terminal.py": {"sys.stdout", "sys.stderr", "typer.confirm"},
    "report/bench.py": set(),
    "playground/play.py": {"print"},  # the address of the page, where `play` is called from Python
}


def ways_out(tree: ast.AST) -> Iterator[str]:
    """What in a module could write to a terminal."""
    functions = {"typer": {"echo", "secho", "confirm", "prompt", "echo_via_pager", "launch"},
                 "sys": {"stdout", "stderr", "__stdout__", "__stderr__"}}  # fmt: skip
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in functions.get(node.value.id, ()):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Name) and node.id in ("print", "input", "Console", "tqdm"):
            yield {"Console": "rich.console.Console"}.get(node.id, node.id)
        elif isinstance(node, ast.ImportFrom) and id(node) not in typing_only:
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                if name.name in functions.get(node.module or "", ()) or (whole in (
                    "rich.print", "rich.console.Console", "rich.progress.Progress", "rich.live.Live", "click.echo"
                ) and whole != "rich.progress.Progress"):  # fmt: skip
                    yield whole


def test_no_module_writes_to_a_terminal_by_itself() -> None:
    """A new command cannot forget to clean what it says."""
    found = {}
    for path in SRC.rglob("*.py"):
        if own := set(ways_out(ast.parse(path.read_text(encoding="utf-8")))):
            found[path.relative_to(SRC).as_posix()] = own
    assert found == {name: ways for name, ways in OTHERS.items() if ways}


@pytest.mark.parametrize("code", [
    "print(1)", "import typer\ntyper.echo(1)", "from typer import secho", "import sys\nsys.stderr.write('')",
    "from rich.console import Console", "from rich import print", "from click import echo",
])  # fmt: skip
def test_a_way_out_is_found(code: str) -> None:
    assert list(ways_out(ast.parse(code)))


def test_what_libraries_write_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.guarded():
        print(TEXT, TEXT)  # noqa: T201
        sys.stderr.write(TEXT)
        sys.stderr.writelines([TEXT, HOSTILE])
        handler = logging.StreamHandler()
        logging.getLogger("foreign").addHandler(handler)
        logging.getLogger("foreign").error("%s", TEXT)
        logging.getLogger("foreign").removeHandler(handler)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            sys.stderr.write(warnings.formatwarning(TEXT, UserWarning, TEXT, 1))
    out, err = capsys.readouterr()
    clean(out, err)
    assert out.count("\\x1b[31m") == 2
    assert err.count("\\x1b[31m") >= 5


def test_a_librarys_progress_bar_goes_on_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.guarded():
        sys.stderr.write("\r 10% of \rthis")
    assert capsys.readouterr().err == "\r 10% of \\rthis"


def test_all_that_is_said_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.guarded():
        terminal.say(HOSTILE)
        terminal.say(HOSTILE, bold=True)
        terminal.say(HOSTILE, err=True)
        terminal.warn(f"{HOSTILE}\nError: forged")
        terminal.fail(f"Error: {HOSTILE}\nError: forged")
        terminal.say_json(json.dumps({HOSTILE: HOSTILE}, ensure_ascii=False))
    out, err = capsys.readouterr()
    clean(out, err)
    assert json.loads(out.splitlines()[-1]) == {HOSTILE: HOSTILE}
    assert err.count("\n") == 3


def test_a_console_takes_nothing_for_markup_links_or_controls(capsys: pytest.CaptureFixture[str]) -> None:
    console = Terminal(force_terminal=True, color_system="truecolor", width=400)
    table = Table("a", HOSTILE, title=TEXT)
    table.add_row(TEXT, Text(TEXT, style=Style(link="http://evil", conceal=True)))
    for printed in (TEXT, Text(TEXT), table, Text("x", style=Style(link="http://evil"))):
        console.print(printed, highlight=False)
    with console.status(TEXT):
        pass
    out = capsys.readouterr().out
    ours = re.sub(r"\x1b\[(?:[0-9;]*m|\?25[lh]|[12]?[KA])|\r", "", out)
    clean(ours)
    assert "\x1b]8" not in out
    assert "\x1b[8m" not in out
    assert out.count(MARKUP) >= 4
    assert "evil" in ours


def test_a_progress_bar_takes_nothing_for_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal
    monkeypatch.setenv("COLUMNS", "400")
    with progress() as bar:
        bar.add_task("[red]r[/red] [/nothing] \x1b[2J", total=1)
        bar.refresh()
    err = capsys.readouterr().err
    clean(re.sub(r"\x1b\[(?:[0-9;]*m|\?25[lh]|[12]?[KA])|\r", "", err))
    assert "[red]r[/red] [/nothing] \\x1" in err


def test_what_a_notebook_shows_is_shown() -> None:
    event = Round((), (1,), (Cause.BONUS,), (1,))
    clean(answer_fragment([TEXT], [event]))


# All commands


@pytest.fixture(scope="module")
def hostile(target: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A target, a draft and a head whose every text is hostile, files that are, and a place for outputs."""
    root = tmp_path_factory.mktemp("hostile")
    tokenizer = word_tokenizer([f"{word}{TEXT}" if i % 2 else word for i, word in enumerate(WORDS)])
    for name, model in (("target", target), ("draft", perturbed(target))):
        model.save_pretrained(root / (name + NAME))
        tokenizer.save_pretrained(root / (name + NAME))
    head = random_head(target)
    head.config = head.config.model_copy(
        update={"labels": TEXT, "data": {TEXT: 1}, "calibration": {TEXT: TEXT, "auc": 0.5},
                "target": head.config.target.model_copy(update={"name_or_path": TEXT, "architecture": TEXT})}
    )  # fmt: skip
    head.save_pretrained(root / ("head" + NAME))
    alien = json.loads((root / ("head" + NAME) / "config.json").read_text())
    alien["target"]["hidden_size"] = 7
    (root / ("alien" + NAME)).mkdir()
    (root / ("alien" + NAME) / "config.json").write_text(json.dumps(alien))
    (root / ("alien" + NAME) / "model.safetensors").write_bytes(
        (root / ("head" + NAME) / "model.safetensors").read_bytes()
    )
    case = Case(question=f"one {TEXT}", answer=f" {TEXT} = 5", source=TEXT, writer=TEXT, annotator=TEXT, reference=TEXT)
    cases = root / f"cases{NAME}.jsonl"
    write_cases(cases, [case, case.model_copy(update={"annotator": "b", "errors": ((0, 2),)})])
    with cases.open("a") as file:
        file.write(json.dumps({"question": "q", "answer": "a", TEXT: 1}) + "\n")
        file.write(json.dumps({"question": "q", "answer": "a", "errors": [[0, 999]], "source": TEXT}) + "\n")
        file.write(f"{TEXT.replace(chr(10), '')}\n")
    samples = root / f"samples{NAME}.jsonl"
    samples.write_text(known(question=TEXT, target=TEXT).model_dump_json() + "\n" + json.dumps({TEXT: TEXT}) + "\n")
    told = yaml.safe_load(packaged()["smollm2-135m-1.7b"].read_text())
    told |= {"about": TEXT, "head": TEXT, "data": TEXT}
    told["target"]["name"] = told["draft"]["name"] = told["gpus"]["name"] = TEXT
    (root / f"recipe{NAME}.yaml").write_text(yaml.safe_dump(told, allow_unicode=False))
    (root / f"bad{NAME}.yaml").write_text(yaml.safe_dump(told | {TEXT: TEXT}, allow_unicode=False))
    (root / f"csv{NAME}.csv").write_text(
        f"question,answer,error\n{json.dumps(TEXT)},a,{TEXT.split('[')[0]}z\n", newline=""
    )
    broken = {"template": "{{ raise_exception(" + repr(TEXT) + ") }}", "loop": "{% for %}"}
    for name, template in broken.items():
        target.save_pretrained(root / (name + NAME))
        word_tokenizer().save_pretrained(root / (name + NAME))
        (root / (name + NAME) / "chat_template.jinja").write_text(template)
    (root / ("kind" + NAME)).mkdir()
    (root / ("kind" + NAME) / "config.json").write_text(json.dumps({"model_type": TEXT, "architectures": [TEXT]}))
    (root / ("dtype" + NAME)).mkdir()
    (root / ("dtype" + NAME) / "config.json").write_text(
        json.dumps({"model_type": "llama", "hidden_act": TEXT, TEXT: 1})
    )
    return {
        path.name.removesuffix(path.suffix if path.is_file() else "").removesuffix(NAME): path
        for path in root.iterdir()
    }


ALSO: dict[str, list[str]] = {
    "generate": [
        "{target} one", "{target} one --draft {draft} --judge {head}", "{target} one --draft {draft} --judge {alien}",
        "{template} one", "{loop} one", "{kind} one", "{dtype} one", "{target} one --rule {text}",
        "{target} one --guard {text} --draft {draft}", "{text} one", "{target} one --device {text}",
    ],
    "play": [
        "--pair {target},{draft},{head} --port 0 --annotator {text}", "--pair {text}",
        "--pair {target},{draft},{alien}",
        "--pair {target},{draft} --cases {cases} --port 0", "--pair {target},{draft} --cases {out}/{text} --port 0",
    ],
    "info": ["{head}", "{head} --json", "{alien} --target {target}", "{target}", "{text}"],
    "card": ["{head} --results {samples}", "{head}", "{target}"],
    "push": ["{head} {text} --dry-run", "{head} me/judge --dry-run", "{text} me/judge"],
    "rules": ["", "--json"],
    "plan": ["{recipe}", "{recipe} --json", "{bad}", "{text}"],
    "serve": ["{recipe} --dry-run", "{recipe}", "{bad}", "{recipe} --force"],
    "lm-eval": ["{text}", "ls {text}"],
    "report": ["{samples} -o {out}/r.html --title {text}", "{samples} -o {out}/r.html --sweep {samples} --overwrite"],
    "score": ["{cases} --target {target} --num-draft-tokens 2", "{cases} --target {target} --rule top_k(k=2) --json",
              "{cases} --target {target} --rule top_k(k=2)"],
    "evaluate": ["{target} --task {text} -o {out}", "{target} --task jsonl --data {cases} -o {out}/e",
                 "{target} --task arithmetic(count=2) --max-new-tokens 4 -o {out}/e2"],
    "train": ["{target} {cases} -o {out}/t"],
    "court stats": ["{cases}", "{cases} --json", "{cases} {cases} --tokenizer {target}", "{samples}"],
    "court check": ["{cases}", "{samples}", "{csv}"],
    "court merge": ["{cases} {cases} -o {out}/m.jsonl"],
    "court import": ["{csv} -f csv -o {out}/i.jsonl", "{cases} -f prodigy -o {out}/i.jsonl",
                     "{cases} -f label-studio -o {out}/i.jsonl", "{cases} -f {text} -o {out}/i.jsonl"],
    "court view": ["{cases} -o {out}/v.html --tokenizer {target}"],
    "court collect": ["{cases} -m {target} -o {out}/c.jsonl --samples 1 --max-new-tokens 4"],
    "court split": ["{cases} --into {text}", "{cases} --into {out}/{text}=0.5"],
}  # fmt: skip
SHORTER = {"demo": " --limit 1 --num-draft-tokens 4"}
ALL = [(name, row.args + SHORTER.get(name, "")) for name, row in TABLE.items() if row.args] + [
    (name, args) for name, several in ALSO.items() for args in several
]


def test_every_command_is_tried() -> None:
    assert {name for name, _ in ALL} == {" ".join(words) for words, _ in commands()}


@pytest.mark.parametrize(("name", "args"), ALL, ids=lambda value: value or "nothing")
def test_no_command_lets_a_terminal_obey(
    run: Run, hostile: dict[str, Path], tmp_path: Path, name: str, args: str, monkeypatch: Any
) -> None:
    """With hostile files and models."""
    monkeypatch.setattr("judge_decoding.labelling.annotate.server.serve", lambda _, listener, __: listener.close())
    monkeypatch.setattr("judge_decoding.playground.server.Playground.serve", lambda *_: None)
    monkeypatch.setattr("webbrowser.open", lambda _: None)
    places = {**hostile, "file": hostile["cases"], "out": tmp_path / f"out{NAME}", "text": TEXT}
    code, out, err = run(*name.split(), *(part.format(**places) for part in args.split()))
    assert code in (0, 1, 2), err
    clean(out, err)
    assert out + err
    if code == 2 and "Error: " in err:
        assert err.count("\nError: ") <= 1


@pytest.mark.parametrize("name", sorted({name for name, _ in ALL}))
def test_a_usage_error_repeats_no_control_characters(run: Run, name: str) -> None:
    code, out, err = run(*name.split(), f"--{TEXT}", TEXT)
    assert code == 2
    clean(out, err)
    assert "x1b" in out + err


@pytest.mark.slow
def test_what_a_server_says_is_shown(run: Run, serve: Serve, hostile: dict[str, Path], tmp_path: Path) -> None:
    replies = [
        Response(400, {"error": {"message": TEXT, "type": TEXT, "code": TEXT}}),
        Response(200, raw=TEXT.encode()),
        said(TEXT),
        Response(500, raw=TEXT.encode(), headers={"x-test": "a"}),
        Response(200, {TEXT: TEXT}),
    ]
    serve(lambda _, number: replies[number % len(replies)])
    cases = tmp_path / "cases.jsonl"
    write_cases(cases, [Case(question=str(i), answer="a", correct=False) for i in range(8)])
    for words in (
        ("court", "collect", cases, "-m", "openai:m", "-o", tmp_path / "a.jsonl", "--retries", 0),
        ("court", "label", "llm", cases, "-m", "m", "-o", tmp_path / "b.jsonl", "--yes", "--retries", 0),
    ):
        code, out, err = run(*words)
        assert code in (0, 1, 2), err
        clean(out, err)
        assert "x1b" in out + err


# On a terminal


COMMANDS = [
    ("generate", "{target}", "one two", "--no-chat", "--max-new-tokens", "12"),
    ("generate", "{target}", "one two", "--no-chat", "--max-new-tokens", "12", "--plain"),
    ("generate", "{template}", "one two"),
    ("info", "{head}"),
    ("court", "stats", "{cases}"),
    ("court", "check", "{cases}"),
    ("court", "stats", "--\x1b]0;x\x07\u202e", "{cases}"),
    ("--help",),
]

# All of them in one process, as importing torch takes the most of it.
RUN_ALL = """
import json, sys
from judge_decoding.cli.main import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["judge-decoding", *words]
    try:
        main()
    except SystemExit:
        pass
    sys.stderr.flush()
    print("<END>", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_on_a_real_terminal_there_are_our_colours_alone(hostile: dict[str, Path]) -> None:
    found = on_terminal([[word.format(**hostile) for word in words] for words in COMMANDS])
    assert len(found) == len(COMMANDS)
    for words, out in zip(COMMANDS, found, strict=True):
        colours = re.findall(r"\x1b\[([0-9;]*)m", out)
        rest = re.sub(r"\x1b\[(?:[0-9;]*m|\?25[lh]|[12]?[KA])|\r", "", out)
        clean(rest)
        assert "8" not in colours
        assert len(rest) > 10, words
        assert ("x1b" in rest) == (words != ("--help",))


def on_terminal(commands: list[list[str]]) -> list[str]:
    """What each command writes to a terminal, both streams."""
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_ALL, json.dumps(commands)], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    os.close(slave)
    found = b""
    try:
        while part := os.read(master, 65536):
            found += part
    except OSError:  # the other end is closed
        pass
    os.close(master)
    process.wait()
    *outputs, after = found.decode().replace("\r\n", "\n").split("<END>\n")  # the terminal's own line ends
    assert after == ""
    return outputs


def test_into_a_pipe_an_answer_goes_as_it_is(run: Run, hostile: dict[str, Path]) -> None:
    args = ("generate", hostile["target"], "one two", "--no-chat", "--max-new-tokens", 12)
    plain, styled = run(*args, "--plain")[1], run(*args)[1]
    assert unsafe(plain)
    clean(styled)
