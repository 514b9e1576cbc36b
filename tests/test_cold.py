"""A command loads what it uses: names of modules, as times are the machine's."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# To tell them from standard output, which is the command's.
TELL = "import atexit, sys; atexit.register(lambda: sys.stderr.write(' '.join(sys.modules)))"

HEAVY = {"torch", "transformers", "numpy", "scipy", "pandas", "matplotlib", "datasets", "tokenizers", "safetensors"}


def loaded(*command: str) -> set[str]:
    """The modules of a process of its own, all that is in their names before a dot included."""
    code = f"{TELL}; from judge_decoding.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    assert done.stdout
    return set(done.stderr.split())


@pytest.mark.parametrize("command", [("--help",), ("--version",), ("generate", "--help"), ("court", "--help")])
def test_help_loads_no_library_that_computes(command: tuple[str, ...]) -> None:
    found = loaded(*command)
    assert "judge_decoding.cli.generate" in found
    assert not found & (HEAVY | {"jinja2", "huggingface_hub", "yaml"})
    own = {name for name in found if name.startswith("judge_decoding.")}
    assert {name for name in own if not name.startswith("judge_decoding.cli")} == {
        "judge_decoding.bounds", "judge_decoding.errors", "judge_decoding.visible"
    }  # fmt: skip


def test_an_answer_loads_neither_training_nor_measuring_nor_writing() -> None:
    found = loaded("generate", "reference", "What is 3 + 4?", "--plain", "--max-new-tokens", "4")
    assert "judge_decoding.judge.head" in found
    # scipy.optimize and torch._dynamo come with transformers' modeling_utils, whoever imports it.
    libraries = {"matplotlib", "datasets", "pandas", "sklearn", "torchvision", "lm_eval", "openai", "starlette"}
    assert not found & (libraries | {"scipy.stats", "torch._inductor.compile_fx", "torch._inductor.codegen.cpp"})
    own = {name.split(".", 1)[1] for name in found if name.startswith("judge_decoding.")}
    unused = {"training", "labelling", "data", "evaluation", "fit", "tasks", "serving", "integrations", "reference"}
    assert not {name.split(".")[0] for name in own} & unused
    assert not any(name.startswith("decoding.backends.static") for name in own)
    assert {name for name in own if name.startswith("report.")} == {"report.terminal", "report.verdicts"}
