"""The flat public API: what is imported is exported, and it is all there."""

from __future__ import annotations

import ast
import re
import types
from pathlib import Path

import judge_decoding


def imported_names() -> set[str]:
    tree = ast.parse(Path(judge_decoding.__file__).read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
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


def test_nothing_public_is_left_out() -> None:
    there = {
        name
        for name, value in vars(judge_decoding).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert there == set(judge_decoding.__all__) - {"__version__"}


def test_the_version_is_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", judge_decoding.__version__)


def test_every_error_a_user_can_cause_is_a_value_error() -> None:
    assert issubclass(judge_decoding.JudgeDecodingError, ValueError)
