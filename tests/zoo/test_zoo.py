"""Every causal LM class of transformers decodes exactly, or is refused before the first token.

A slow test, in its own folder: ``make test-zoo`` and ``make test-versions`` run it.
"""

from __future__ import annotations

import json

import pytest
from check import EXACT, EXPECTED
from families import names
from table import FOUND, look

KNOWN: dict[str, str] = json.loads(FOUND.read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore")  # what models' own code warns of
@pytest.mark.parametrize("name", names())
def test_exact_or_refused(name: str) -> None:
    row, made, why = look(name)
    if row is None:
        pytest.skip(why)  # another version may not build a tiny one, or not generate with it
    assert not row.wrong
    assert made == EXPECTED or made.startswith("no: ")
    if KNOWN.get(name) == "exact":
        assert set(row.found.values()) == {EXACT}
    elif KNOWN.get(name) == "alone":
        assert row.found["alone"] == row.found["batch"] == EXACT
