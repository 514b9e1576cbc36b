"""The flat public API: what is imported is exported, and it is all there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import pytest

import judge_decoding


def stub() -> list[ast.stmt]:
    """What type checkers see."""
    return ast.parse(Path(judge_decoding.__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body


def test_the_stub_exports_each_name_from_where_it_is_found() -> None:
    """Strict type checkers take for exported what is imported as itself."""
    imports = [node for node in stub() if isinstance(node, ast.ImportFrom)]
    assert len(imports) > 60
    for node in imports:
        (alias,) = node.names
        assert alias.asname == alias.name
        assert getattr(judge_decoding, alias.name) is getattr(import_module(node.module or ""), alias.name)
    exported = [node.names[0].name for node in imports]
    assert sorted([*exported, "__version__"]) == judge_decoding.__all__ == dir(judge_decoding)
    (version,) = (node for node in stub() if not isinstance(node, ast.ImportFrom))
    assert ast.unparse(version) == "__version__: str"


def test_all_is_sorted_and_without_repetition() -> None:
    assert list(judge_decoding.__all__) == sorted(set(judge_decoding.__all__))


def test_every_public_name_is_there_and_documented() -> None:
    for name in judge_decoding.__all__:
        value = getattr(judge_decoding, name)
        assert isinstance(value, str) or value.__doc__, name
        assert not isinstance(value, types.ModuleType), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = judge_decoding.nonsense


def test_the_package_is_imported_without_torch() -> None:
    code = "import sys, judge_decoding.cli.main; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_version_is_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", judge_decoding.__version__)


def test_every_error_a_user_can_cause_is_a_value_error() -> None:
    assert issubclass(judge_decoding.JudgeDecodingError, ValueError)
