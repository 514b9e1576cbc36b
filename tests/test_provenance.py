"""Where figures come from is said beside them."""

from __future__ import annotations

import pytest
import torch
import transformers

from judge_decoding.models.provenance import command, machine, versions


def test_figures_name_the_releases_that_made_them() -> None:
    said = machine(torch.device("cpu"))
    assert f"1 used, torch {torch.__version__}, transformers {transformers.__version__}" in said
    found = versions()
    assert (found["torch"], found["transformers"]) == (torch.__version__, transformers.__version__)


def test_a_command_is_named_as_a_shell_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("/opt/bin/judge-decoding", "/opt/lib/judge_decoding/cli/main.py"):
        monkeypatch.setattr("sys.argv", [program, "bench", "--out", "speed"])
        assert command() == ("judge-decoding", "bench", "--out", "speed")
    monkeypatch.setattr("sys.argv", ["benchmarks/gpu.py", "--out", "x"])
    assert command() == ("gpu.py", "--out", "x")
