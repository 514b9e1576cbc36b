"""A command loads what it uses: names of modules, as times are the machine's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from commands import commands

pytestmark = pytest.mark.slow

# To tell them from standard output, which is the command's.
TELL = "import atexit, sys; atexit.register(lambda: sys.stderr.write(' '.join(sys.modules)))"

HEAVY = {"torch", "transformers", "numpy", "scipy", "pandas", "matplotlib", "datasets", "tokenizers", "safetensors"}


def loaded(*command: str, code: int = 0) -> set[str]:
    """The modules of a process of its own, all that is in their names before a dot included."""
    program = f"{TELL}; from judge_decoding.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout or code
    return set(done.stderr.split())


@pytest.mark.parametrize("command", ["rules", "rules typical", "info reference", "plan llama-3.1-8b-405b"])
def test_what_is_read_from_files_loads_no_torch(command: str) -> None:
    assert not loaded(*command.split()) & (HEAVY - {"numpy", "safetensors"})


GROUP = {"cli.court", "cli.group", "cli.last", "cli.main", "cli.options", "cli.terminal"}
WORDS = {"bounds", "errors", "spelling", "visible"}


@pytest.mark.parametrize(
    "command", ["--help", "--version", "court --help", "court label -h", "genrate", "court colect"]
)
def test_a_group_imports_no_command(command: str) -> None:
    found = loaded(*command.split(), code=2 if command.endswith(("genrate", "colect")) else 0)
    assert not found & (HEAVY | {"jinja2", "huggingface_hub", "yaml"})
    assert {name.split(".", 1)[1] for name in found if name.startswith("judge_decoding.")} - {"cli"} <= GROUP | WORDS


@pytest.mark.parametrize("command", [" ".join(words) for words, _ in commands() if words != ("lm-eval",)])
def test_the_help_of_a_command_loads_no_library_that_computes(command: str) -> None:
    found = loaded(*command.split(), "--help")
    assert not found & {"torch", "transformers", "matplotlib", "datasets", "openai", "starlette"}


def test_an_answer_loads_neither_training_nor_measuring_nor_writing() -> None:
    found = loaded("generate", "reference", "What is 3 + 4?", "--plain", "--max-new-tokens", "4")
    assert "judge_decoding.judge.head" in found
    # scipy.optimize and torch._dynamo come with transformers' modeling_utils, whoever imports it.
    libraries = {"matplotlib", "datasets", "pandas", "sklearn", "torchvision", "lm_eval", "openai", "starlette"}
    assert not found & (libraries | {"scipy.stats", "torch._inductor.compile_fx", "torch._inductor.codegen.cpp"})
    own = {name.split(".", 1)[1] for name in found if name.startswith("judge_decoding.")}
    unused = {"training", "labelling", "data", "evaluation", "fit", "tasks", "serving", "integrations", "reference"}
    assert not {name.split(".")[0] for name in own - {"evaluation", "evaluation.recording"}} & unused
    assert not any(name.startswith("decoding.backends.static") for name in own)
    assert {name for name in own if name.startswith("report.")} == {"report.terminal", "report.verdicts"}
