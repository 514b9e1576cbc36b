"""What a round may cost, in counts that do not depend on the machine: forwards, waits for the device, launches, memory.

Whoever makes a round dearer sees it here, and whoever makes it cheaper lowers the numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from judge_decoding import Exact, Judge, Round, VerificationRule, decode
from judge_decoding.decoding.backends import Target
from judge_decoding.decoding.drafting import Drafter, DraftModel
from judge_decoding.decoding.static.compiling import Compiled
from judge_decoding.decoding.static.draft import CompiledDraft, StaticDraft
from judge_decoding.decoding.static.target import StaticTarget
from tiny import VOCAB_SIZE, llama, perturbed, random_head, request

WAITS = ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "nonzero", "cpu", "numpy")
"""What makes the host wait for the device, if the tensor is there."""


class Waits(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(function, "__name__", "") in WAITS
        return function(*args, **(kwargs or {}))


class Launches(TorchDispatchMode):
    """Counts operations that would launch a kernel: views launch none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


@contextmanager
def calls(patch: pytest.MonkeyPatch, owner: type, name: str, seen: Counter[str]) -> Iterator[None]:
    original = getattr(owner, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen["forwards"] += 1
        return original(*args, **kwargs)

    with patch.context() as context:
        context.setattr(owner, name, counted)
        yield


def costs(target: Target, make: Callable[[], Drafter], rule: VerificationRule, length: int, patch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """For each count, the values that rounds in the middle of an answer had."""
    found: dict[str, set[int]] = {"forwards": set(), "waits": set(), "launches": set(), "tokens": set()}
    model = target.model if isinstance(target, StaticTarget) else target
    seen: Counter[str] = Counter()
    owner, name = (Compiled, "__call__") if isinstance(target, StaticTarget) else (type(model), "forward")
    asked = request(model, [1, 5, 6], rule, num_draft_tokens=length, max_new_tokens=60)
    with calls(patch, owner, name, seen), Waits() as waits, Launches() as launches:
        events: Iterator[tuple[int, Round]] = decode(target, make(), [asked])
        next(events)
        while True:
            before = (seen["forwards"], waits.count, launches.count)
            if (event := next(events, None)) is None:
                break
            after = (seen["forwards"], waits.count, launches.count)
            if len(event[1].draft_ids) == length:
                for kind, a, b in zip(("forwards", "waits", "launches"), before, after, strict=True):
                    found[kind].add(b - a)
                found["tokens"].add(len(event[1].token_ids))
    return found


@pytest.fixture(scope="module")
def model() -> Any:
    return llama(0)


@pytest.mark.parametrize("judged", [False, True])
def test_static(model: Any, judged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    head = random_head(model, norm="after")
    target = StaticTarget(model, [("before", -1), ("after", -1)])
    draft = CompiledDraft(perturbed(model, 0.05), VOCAB_SIZE)
    found = costs(target, lambda: StaticDraft(draft), Judge(head, 0.5) if judged else Exact(), 16, monkeypatch)
    print(found)
    assert len(found["tokens"]) > 1


@pytest.mark.parametrize("judged", [False, True])
def test_eager(model: Any, judged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    head = random_head(model, norm="after")
    draft = perturbed(model, 0.05)
    found = costs(model, lambda: DraftModel(draft, VOCAB_SIZE), Judge(head, 0.5) if judged else Exact(), 5, monkeypatch)
    print(found)
    assert len(found["tokens"]) > 1
