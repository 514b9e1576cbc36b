"""Drafters, and the registry of named drafters.

A package registers a drafter under the entry-point group ``judge_decoding.drafters``: a name, and a function without
arguments that returns a `Drafter`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from judge_decoding.decoding.drafters.base import Drafter
from judge_decoding.decoding.drafters.simple import PromptLookup
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.names import DRAFTERS, PROMPT_LOOKUP
from judge_decoding.plugins import description_of, imported, installed

_BUILT_IN: dict[str, Callable[[], Drafter]] = {PROMPT_LOOKUP: PromptLookup}


def named_drafter(name: str) -> Drafter:
    """Create the drafter with this name."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    entry = installed(DRAFTERS, _BUILT_IN)[name]
    drafter = cast(Callable[[], object], imported(entry, "drafter"))()
    if not isinstance(drafter, Drafter):
        raise JudgeDecodingError(
            f"{description_of(entry, 'drafter')} proposes no tokens; repair or remove that package."
        )
    return drafter
