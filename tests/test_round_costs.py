"""What a round may cost, in counts that do not depend on the machine: forwards, waits for the device, launches, memory.

Whoever makes a round dearer sees it here, and whoever makes it cheaper lowers the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaForCausalLM

from judge_decoding import Exact, Judge, VerificationRule, decode
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.core.rounds import Round, Seconds
from judge_decoding.decoding.backends.static.draft import CompiledDraft, StaticDraft
from judge_decoding.decoding.backends.static.graphs import DraftGraph, TargetGraph
from judge_decoding.decoding.backends.static.kv_cache import StaticKVCache
from judge_decoding.decoding.backends.static.lm import FEW
from judge_decoding.decoding.backends.static.slots import new_cache
from judge_decoding.decoding.backends.static.target import StaticTarget
from judge_decoding.decoding.drafters.base import Drafter
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.decoding.verification import verify
from judge_decoding.rules import Evidence
from judge_decoding.rules.verification import Verdicts, decide
from tiny import VOCAB_SIZE, llama, perturbed, random_head, request

WAITS = ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "nonzero", "cpu", "numpy")
"""What makes the host wait for the device, if the tensor is there."""

STATIC_LAUNCHES = 1
"""Joining what several calls of a draft have chosen."""

EAGER_LAUNCHES = 105


class Waits(TorchFunctionMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts.waits += getattr(function, "__name__", "") in WAITS
        return function(*args, **(kwargs or {}))


class Launches(TorchDispatchMode):
    """Counts operations that would launch a kernel: views launch none."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts.launches += not function.is_view
        return function(*args, **(kwargs or {}))


@dataclass
class Counts:
    """Of one decoding, so far."""

    forwards: int = 0
    """Calls of a model, or of what was compiled of it: each is one launch from Python."""
    waits: int = 0
    """Outside the models, as the next two are."""
    launches: int = 0
    allocations: int = 0
    """Of memory for keys and values."""

    def minus(self, other: Counts) -> tuple[int, ...]:
        return tuple(a - b for a, b in zip(astuple(self), astuple(other), strict=True))


@contextmanager
def counting(patch: pytest.MonkeyPatch, *models: Any) -> Iterator[Counts]:
    """Counts while it is open; ``models`` are the classes whose calls are forwards."""
    counts = Counts()
    waits, launches = Waits(counts), Launches(counts)

    def forward(original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            before = replace(counts)
            output = original(*args, **kwargs)
            counts.launches, counts.waits = before.launches, before.waits
            counts.forwards += 1
            return output

        return counted

    def zeros(*args: Any) -> Any:
        counts.allocations += 1
        return new_cache(*args)

    with patch.context() as context, waits, launches:
        for model in models:
            context.setattr(model, "forward", forward(model.forward))
        context.setattr("judge_decoding.decoding.backends.static.kv_cache.new_cache", zeros)
        yield counts


def round_costs(
    target: StaticTarget | LlamaForCausalLM, drafter: Drafter, rule: VerificationRule, length: int, counts: Counts
) -> list[tuple[int, tuple[int, ...]]]:
    """What each whole round but the first kept and cost."""
    model = target.model if isinstance(target, StaticTarget) else target
    asked = request(model, [1, 5, 6], rule, num_draft_tokens=length, max_new_tokens=60)
    found, before = [], replace(counts)
    for number, (_, event) in enumerate(decode(target, drafter, [asked])):
        after = replace(counts)
        if number and len(event.draft_ids) == length:
            found.append((len(event.token_ids), after.minus(before)))
        before = after
    return found


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return llama(0)


def rules(model: LlamaForCausalLM) -> list[VerificationRule]:
    return [Exact(), Judge(random_head(model, norm="after"), 0.5)]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "length", "forwards"), [(0, 16, 5), (0, 4, 2), (0, 5, 3), (0, 1, 2), (1, 5, 3)])
def test_a_static_round(
    model: LlamaForCausalLM, number: int, length: int, forwards: int, monkeypatch: pytest.MonkeyPatch, uncompiled: None
) -> None:
    """One forward of the target, few calls of the draft, one wait, no memory; whatever was kept."""
    target = StaticTarget(model, [HiddenSource(-1, "before"), HiddenSource()])
    draft = CompiledDraft(perturbed(model, 0.05), VOCAB_SIZE)
    with counting(monkeypatch, TargetGraph, DraftGraph) as counts:
        rounds = round_costs(target, StaticDraft(draft), rules(model)[number], length, counts)
    assert len({kept for kept, _ in rounds}) > 1  # rejections, and acceptances
    assert {cost[:2] for _, cost in rounds} == {(forwards, 1)}
    assert max(cost[2] for _, cost in rounds) <= STATIC_LAUNCHES
    assert {cost[3] for _, cost in rounds} == {0}
    assert counts.allocations == 2  # one for each model


@pytest.mark.parametrize(
    ("rows", "missing", "count", "calls"),
    [
        (1, 1, 8, "44"), (1, 1, 6, "411"), (1, 1, 3, "4"), (1, 1, 1, "1"), (2, 2, 8, "44"),
        (1, FEW, 4, "4"), (1, FEW + 1, 8, "144"), (FEW, 1, 4, "4"), (FEW + 1, 1, 3, "111"),
    ],
)  # fmt: skip
def test_the_calls_of_a_draft(
    model: LlamaForCausalLM, rows: int, missing: int, count: int, calls: str,
    monkeypatch: pytest.MonkeyPatch, uncompiled: None,
) -> None:  # fmt: skip
    """Four steps a call where the forward for few tokens can; one where many are read, or few are missing."""
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    draft, steps, forward = CompiledDraft(model, VOCAB_SIZE), [], DraftGraph.forward

    def seen(self: DraftGraph, *inputs: Any) -> Any:
        chosen, rest = forward(self, *inputs)
        steps.append(chosen.shape[1] - 2)
        return chosen, rest

    monkeypatch.setattr(DraftGraph, "forward", seen)
    tokens = torch.ones(rows, 1 + missing, dtype=torch.long)
    with torch.inference_mode():
        found = draft.draft_greedily(tokens, StaticKVCache(model, rows, 64), missing, count)
    assert found.shape == (rows, 2 + count)
    assert found[:, :2].tolist() == [[missing, 1]] * rows  # where the last token is that was read
    assert "".join(map(str, steps)) == calls


@pytest.mark.parametrize("number", [0, 1], ids=["exact", "judge"])
def test_an_eager_round(model: LlamaForCausalLM, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One forward of the target and one for each draft token."""
    draft = perturbed(model, 0.05)
    with counting(monkeypatch, LlamaForCausalLM) as counts:
        rounds = round_costs(model, DraftModel(draft, VOCAB_SIZE), rules(model)[number], 5, counts)
    assert len({kept for kept, _ in rounds}) > 1
    assert {cost[0] for _, cost in rounds} == {6}
    assert max(cost[2] for _, cost in rounds) <= EAGER_LAUNCHES


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("number", [0, 1], ids=["exact", "judge"])
def test_an_eager_verification_waits_once(
    model: LlamaForCausalLM, number: int, rows: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows there are, and though their drafts have different lengths."""
    rule, counts, waits = rules(model)[number], Counts(), []

    def counted(*args: Any) -> Any:
        with Waits(counts):
            before = counts.waits
            events = verify(*args)
            waits.append((len(events), len({len(event.draft_ids) for event in events}), counts.waits - before))
        return events

    monkeypatch.setattr("judge_decoding.decoding.loop.verify", counted)
    requests = [
        request(model, [1, 5 + row], rule, num_draft_tokens=3 + row, max_new_tokens=16, temperature=temperature, seed=1)
        for row in range(rows)
    ]
    list(decode(model, DraftModel(perturbed(model, 0.05), VOCAB_SIZE), requests))
    assert (rows, rows, 1) in waits
    assert {count for _, _, count in waits} == {1}


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_verification_copies_the_logits_of_few_rows_at_a_time(
    model: LlamaForCausalLM, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows there are: the rounds are the same, and the host waits once."""
    draft, rule = perturbed(model, 0.05), rules(model)[1]

    def rounds() -> list[Round]:
        found: list[list[Round]] = [[] for _ in range(7)]
        requests = [
            request(model, [1, 5 + row], rule, num_draft_tokens=4, max_new_tokens=20, temperature=temperature, seed=row)
            for row in range(7)
        ]
        for row, event in decode(model, DraftModel(draft, VOCAB_SIZE), requests):
            found[row].append(replace(event, seconds=Seconds()))
        return [event for events in found for event in events]

    whole, sizes, waits = rounds(), [], []

    def sized(rule: VerificationRule, evidence: Evidence, *others: Any) -> Verdicts:
        sizes.append(evidence.target_logits.nbytes)
        return decide(rule, evidence, *others)

    def counted(*args: Any) -> Any:
        counts = Counts()
        with Waits(counts):
            events = verify(*args)
        waits.append(counts.waits)
        return events

    limit = 3 * 5 * VOCAB_SIZE * 4
    monkeypatch.setattr("judge_decoding.rules.verification.MAX_BYTES", limit)
    monkeypatch.setattr("judge_decoding.decoding.verification.decide", sized)
    monkeypatch.setattr("judge_decoding.decoding.loop.verify", counted)
    parts = rounds()
    assert [replace(event, scores=None) for event in parts] == [replace(event, scores=None) for event in whole]
    # The vectorised sigmoid of a CPU and that of its last few numbers may round the last bit otherwise.
    assert [event.scores or () for event in parts] == [pytest.approx(event.scores or (), rel=1e-6) for event in whole]
    assert max(sizes) == limit
    assert sizes[:3] == [limit, limit, limit // 3]  # seven rows in the first round
    assert set(waits) == {1}
