"""Every causal LM class of transformers decodes exactly, or is refused before the first token.

A slow test, in its own folder: ``make test-zoo`` and ``make test-versions`` run it.
"""

from __future__ import annotations

import json

import pytest
from check import EXACT, check
from families import build, names
from table import FOUND

KNOWN: dict[str, str] = json.loads(FOUND.read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore")  # what models' own code warns of
@pytest.mark.parametrize("name", names())
def test_exact_or_refused(name: str) -> None:
    if KNOWN.get(name) == "not tried":
        return  # its tiny configuration does not build, or generate itself fails on it
    row = check(name, build(name))
    assert not row.wrong
    if KNOWN.get(name) == "exact":
        assert set(row.found.values()) == {EXACT}
    elif KNOWN.get(name) == "alone":
        assert row.found["alone"] == row.found["batch"] == EXACT
