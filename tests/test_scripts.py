"""Scripts of benchmarks, recipes and docs: every name that they use of the package exists in it."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for part in ("benchmarks", "recipes", "docs") for path in (ROOT / part).rglob("*.py"))
NOT_HERE = ("judge_decoding.integrations.vllm", "judge_decoding.integrations.lm_eval")
"""Packages whose own dependencies are not installed with the tests."""


def missing(script: Path) -> list[str]:
    """The names that the script imports from the package, or reads from its modules, and that are not there."""
    tree, bound, found = ast.parse(script.read_text(encoding="utf-8")), dict[str, object](), list[str]()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("judge_decoding"):
            continue
        if (node.module or "").startswith(NOT_HERE):
            continue
        module = importlib.import_module(node.module or "")
        for name in node.names:
            try:
                bound[name.asname or name.name] = getattr(module, name.name)
            except AttributeError:
                try:
                    bound[name.asname or name.name] = importlib.import_module(f"{node.module}.{name.name}")
                except ImportError:
                    found.append(f"{node.module}.{name.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            of = bound.get(node.value.id)
            if inspect.ismodule(of) and not hasattr(of, node.attr):
                found.append(f"{of.__name__}.{node.attr}")
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_all_names_of_the_package_that_a_script_uses_exist(script: Path) -> None:
    assert missing(script) == []


def test_a_name_that_is_gone_is_found(tmp_path: Path) -> None:
    script = tmp_path / "one.py"
    script.write_text("from judge_decoding.reference import pair\nfrom judge_decoding import Exact, Gone\npair.GONE\n")
    assert missing(script) == ["judge_decoding.Gone", "judge_decoding.reference.pair.GONE"]
