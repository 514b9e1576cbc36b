"""Describe the verification rules of installed packages, which must be imported."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from judge_decoding.cli.rule_docs import texts
from judge_decoding.rules import available_rules
from judge_decoding.rules import spelling as spellings


def described(names: Container[str]) -> list[dict[str, Any]]:
    """Describe the rules with these names as plain JSON values."""
    return [
        {**spellings.described(rule), **texts(rule.__doc__ or "")}
        for name, rule in available_rules().items()
        if name in names
    ]
