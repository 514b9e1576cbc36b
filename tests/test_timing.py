"""Where the time of a round goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from judge_decoding import Exact, decode
from judge_decoding.core.rounds import Seconds
from judge_decoding.decoding import loop
from judge_decoding.decoding.backends import eager as backends
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.decoding.timing import Stopwatch
from tiny import llama, perturbed, request


def test_all_that_a_round_does_is_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(Stopwatch, "_now", lambda _: clock[0])

    def slow(owner: Any, name: str, seconds: float) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def later(*args: Any) -> Any:
            clock[0] += seconds
            return original(*args)

        monkeypatch.setattr(owner, name, later)

    slow(backends._EagerSession, "retain", 1.0)
    slow(DraftModel, "propose", 10.0)
    slow(backends._EagerSession, "read", 100.0)
    slow(loop, "verify", 1000.0)
    model = llama(0)
    drafter = DraftModel(perturbed(model, 0.05), model.config.vocab_size)
    asked = request(model, [1, 5, 6], Exact(), num_draft_tokens=3, max_new_tokens=12)
    first, *others = (event.seconds for _, event in decode(model, drafter, [asked]))
    assert first == Seconds(draft=10.0, verify=100.0, rule=1000.0, overhead=0.0)
    # What is taken back before a round is a part of it; its last one may have no room for a draft.
    assert len(others) > 1
    assert set(others[:-1]) == {Seconds(draft=10.0, verify=100.0, rule=1000.0, overhead=1.0)}
