"""The flat public API: what is imported is exported, and it is all there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import judge_decoding


def imported_names() -> set[str]:
    """What type checkers see: the imports under ``if TYPE_CHECKING``."""
    tree = ast.parse(Path(judge_decoding.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def test_all_is_sorted_and_without_repetition() -> None:
    assert list(judge_decoding.__all__) == sorted(set(judge_decoding.__all__))


def test_all_names_what_is_imported_and_the_version() -> None:
    assert set(judge_decoding.__all__) == imported_names() | {"__version__"}


def test_every_public_name_is_there_and_documented() -> None:
    for name in judge_decoding.__all__:
        value = getattr(judge_decoding, name)
        assert isinstance(value, str) or value.__doc__, name
        assert not isinstance(value, types.ModuleType), name


def test_what_is_imported_on_first_use_is_what_type_checkers_see() -> None:
    assert set(judge_decoding._HOMES) == imported_names()
    assert dir(judge_decoding) == judge_decoding.__all__


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
