"""A command loads what it uses: names of modules, as times are the machine's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from commands import commands

pytestmark = pytest.mark.slow

# Each command in turn, in one process: it prints what each has loaded that was not there before, and its exit code.
TELL = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
told = []
for words in json.loads(sys.argv[1]):
    before, out, code = set(sys.modules), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        from judge_decoding.cli.main import main
        sys.argv = ["judge-decoding", *words]
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    told.append((code, bool(out.getvalue()), sorted(set(sys.modules) - before)))
print(json.dumps(told))
"""

HEAVY = {"torch", "transformers", "numpy", "scipy", "pandas", "matplotlib", "datasets", "tokenizers", "safetensors"}


def loaded(*commands: str, code: int = 0) -> dict[str, set[str]]:
    """The modules that each command loads which those before it have not, in a process of their own."""
    words = json.dumps([command.split() for command in commands])
    done = subprocess.run([sys.executable, "-c", TELL, words], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    for command, (ended, said, _) in zip(commands, found, strict=True):
        assert ended == code, command
        assert said or code, command
    return {command: set(modules) for command, (*_, modules) in zip(commands, found, strict=True)}


def test_what_is_read_from_files_loads_no_torch() -> None:
    for command, found in loaded("rules", "rules typical", "info reference", "plan llama-3.1-8b-405b").items():
        assert not found & (HEAVY - {"numpy", "safetensors"}), command


GROUP = {"cli.court", "cli.group", "cli.crash", "cli.main", "cli.options", "cli.terminal"}
WORDS = {"bounds", "errors", "intervals", "spelling", "visible"}
LAYOUT = {"cli.console", "cli.help"}
"""Of the help, of groups too."""


@pytest.mark.parametrize(
    ("commands", "code"),
    [(("--help", "--version", "court --help", "court label -h"), 0), (("genrate", "court colect"), 2)],
)
def test_a_group_imports_no_command(commands: tuple[str, ...], code: int) -> None:
    for command, found in loaded(*commands, code=code).items():
        assert not found & (HEAVY | {"jinja2", "huggingface_hub", "yaml"}), command
        own = {name.split(".", 1)[1] for name in found if name.startswith("judge_decoding.")}
        assert own - {"cli"} <= GROUP | WORDS | (LAYOUT if code == 0 else set()), command


def test_the_help_of_a_command_loads_no_library_that_computes() -> None:
    helps = [" ".join([*words, "--help"]) for words, _ in commands() if words != ("lm-eval",)]
    assert len(helps) > 25
    for command, found in loaded(*helps).items():
        assert not found & {"torch", "transformers", "matplotlib", "datasets", "openai", "starlette"}, command


def test_an_answer_loads_neither_training_nor_measuring_nor_writing() -> None:
    (found,) = loaded("generate reference 3+4? --plain --max-new-tokens 4").values()
    assert "judge_decoding.judge.head" in found
    # scipy.optimize and torch._dynamo come with transformers' modeling_utils, whoever imports it.
    libraries = {"matplotlib", "datasets", "pandas", "sklearn", "torchvision", "lm_eval", "openai", "starlette"}
    assert not found & (libraries | {"scipy.stats", "torch._inductor.compile_fx", "torch._inductor.codegen.cpp"})
    own = {name.split(".", 1)[1] for name in found if name.startswith("judge_decoding.")}
    unused = {"training", "labelling", "data", "evaluation", "fit", "tasks", "serving", "integrations", "reference"}
    assert not {name.split(".")[0] for name in own - {"evaluation", "evaluation.recording"}} & unused
    assert not any(name.startswith("decoding.backends.static") for name in own)
    assert {name for name in own if name.startswith("report.")} == {
        "report.terminal",
        "report.verdicts",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="there are no terminals of this kind")
def test_a_start_that_takes_seconds_is_shown_and_libraries_say_nothing() -> None:
    """On a terminal; torchao, which transformers imports, has much to say where parts of it do not fit the machine."""
    own, other = os.openpty()
    words = ("generate", "--target", "reference", "Tom has 2 pens. Tom buys 3 pens. How many pens does Tom have now?")
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        [sys.executable, "-m", "judge_decoding.cli.main", *words],
        stdout=subprocess.DEVNULL,
        stderr=other,
        env=environment,
    ) as process:
        os.close(other)
        seen = b""
        try:
            while part := os.read(own, 4096):
                seen += part
        except OSError:  # Linux: the other side is closed
            pass
    os.close(own)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    parts = [re.sub(r"^[\u2800-\u28ff] ?", "", part.strip()) for part in re.split(r"[\r\n]+", text)]
    assert list(dict.fromkeys(filter(None, parts))) == [
        "loading torch and transformers", "loading the models", "Using the chat template; --no-chat turns it off.",
    ]  # fmt: skip
