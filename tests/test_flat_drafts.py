"""Flat drafts of many requests: what each one's rule would say of it alone, written into the logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from judge_decoding import Evidence, VerificationRule, parse_rule
from judge_decoding.core.rounds import Cause
from judge_decoding.decoding.guards import History, parse_guard
from judge_decoding.judge.head import JudgeHead
from judge_decoding.serving.flat_drafts import FlatDrafts, Guarded, kept_rescues, lift, rescues
from tiny import AcceptAll

COUNTS = [3, 0, 5, 1, 3, 2]
VOCABULARY, HIDDEN = 11, 32


def drafts(seed: int = 0, counts: list[int] | None = None, *, probs: bool = False) -> FlatDrafts:
    """Random drafts, about half of whose tokens are the target's own."""
    torch.manual_seed(seed)
    counts = COUNTS if counts is None else counts
    total = sum(counts)
    logits = torch.randn(total, VOCABULARY)
    ids = torch.where(torch.rand(total) < 0.5, logits.argmax(-1), torch.randint(VOCABULARY, (total,)))
    return FlatDrafts(
        ids.int(), counts, logits, torch.ones(total, dtype=torch.bool), torch.randn(total, HIDDEN),
        torch.randn(total, VOCABULARY).softmax(-1) if probs else None,
    )  # fmt: skip


def alone(flat: FlatDrafts, rules: list[VerificationRule | None]) -> Tensor:
    """The same, one request after the other, each in an evidence of its own."""
    parts = []
    pieces = zip(flat.token_ids.split(flat.counts), flat.logits.split(flat.counts), strict=True)
    assert flat.hidden is not None
    for (ids, logits), hidden, rule in zip(pieces, flat.hidden.split(flat.counts), rules, strict=True):
        if rule is None or not len(ids):
            parts.append(torch.zeros(len(ids), dtype=torch.bool))
            continue
        behind = torch.randn(1, VOCABULARY)
        evidence = Evidence(ids.long()[None], torch.cat((logits, behind))[None], hidden=hidden[None])
        parts.append((rule.accept(evidence) & ~evidence.agreed)[0])
    return torch.cat(parts)


@pytest.mark.parametrize("limit", [1, 2**28])
@pytest.mark.parametrize(
    "spelling",
    ["judge(threshold=0.5)", "top_k(k=3)", "typical(epsilon=0.2, delta=0.9)", "entropy_gate(entropy=0.1, window=1)",
     "running_surprise(epsilon=2.5)", "lenience(factor=0.2)", "judge(threshold=0.7) | top_k(k=2)"],
)  # fmt: skip
def test_a_request_gets_what_it_would_get_alone(
    head: JudgeHead, monkeypatch: pytest.MonkeyPatch, spelling: str, limit: int
) -> None:
    monkeypatch.setattr("judge_decoding.rules.verification.MAX_BYTES", limit)  # 1: each request in a part of its own
    rule = parse_rule(spelling, head)
    other = parse_rule("top_k(k=4)")
    rules = [rule, rule, None, other, rule, rule]
    found = 0
    for seed in range(5):
        flat = drafts(seed)
        rescued = rescues(flat, rules, [True] * 6)
        assert rescued.tolist() == alone(flat, rules).tolist()
        found += int(rescued.sum())
    assert found


def test_what_is_forbidden_is_never_rescued() -> None:
    flat = drafts()
    free = rescues(flat, [AcceptAll()] * 6, [True] * 6)
    assert free.any()
    place = int(free.nonzero()[0])
    flat.allowed[place] = False
    assert rescues(flat, [AcceptAll()] * 6, [True] * 6).tolist() == [
        value and i != place for i, value in enumerate(free.tolist())
    ]
    flat.allowed[place] = True
    flat.token_ids[place] = -1
    assert not rescues(flat, [AcceptAll()] * 6, [True] * 6)[place]


def test_each_request_has_its_own_guards_and_history() -> None:
    """Budgets, by hand: what was rescued before counts, and so does every rescue of this draft, first come first."""
    flat = drafts()
    free = rescues(flat, [AcceptAll()] * 6, [True] * 6).split(COUNTS)
    spent = History([1], [2, 3], [Cause.RESCUED, Cause.AGREED])
    guarded = [
        None, None, Guarded((parse_guard("budget(tokens=2)"),), spent),
        Guarded((parse_guard("strict_start(tokens=3)"),), History()),
        Guarded((parse_guard("budget(tokens=1)"), parse_guard("strict_start(tokens=4)")), spent), None,
    ]  # fmt: skip
    found = rescues(flat, [AcceptAll()] * 6, [True] * 6, guarded).split(COUNTS)
    for request in (0, 1, 5):
        assert found[request].equal(free[request])
    assert free[2].sum() > 1
    assert found[2].nonzero().flatten().tolist() == free[2].nonzero().flatten()[:1].tolist()  # one of two is left
    assert not found[3].any()  # the first of three tokens
    assert not found[4].any()  # the budget is spent


def test_a_forbidden_token_takes_nothing_of_a_budget() -> None:
    flat = drafts()
    first, second = rescues(flat, [AcceptAll()] * 6, [True] * 6).nonzero().flatten()[:2].tolist()
    assert second < COUNTS[0]
    flat.allowed[first] = False
    guarded = [Guarded((parse_guard("budget(tokens=1)"),), History()), *[None] * 5]
    found = rescues(flat, [AcceptAll(), *[None] * 5], [True] * 6, guarded)
    assert found.nonzero().flatten().tolist() == [second]


def test_a_lossless_rule_and_none_rescue_nothing(head: JudgeHead) -> None:
    for rule in (parse_rule("exact"), parse_rule("judge(threshold=1)", head), None):
        assert not rescues(drafts(), [rule] * 6, [True] * 6).any()


def test_above_temperature_0_only_the_rules_own_criterion_counts(head: JudgeHead) -> None:
    flat = drafts()
    assert flat.hidden is not None
    sampled = rescues(flat, [parse_rule("judge(threshold=0.5)", head)] * 6, [False] * 6)
    assert sampled.tolist() == (head.probability(flat.hidden) > 0.5).tolist()
    assert sampled.any()
    assert not sampled.all()


def test_rules_on_the_drafts_distributions_need_them() -> None:
    rule = parse_rule("fuzzy(threshold=0.5)")
    with_probs = drafts(probs=True)
    assert rescues(with_probs, [rule] * 6, [False] * 6).any()
    assert not rescues(drafts(), [rule] * 6, [False] * 6).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_lifted_token_is_certain_and_the_others_stay(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 6).to(dtype)
    logits[2, 1] = -math.inf  # cut off by top-k
    before = logits.clone()
    lift(logits, torch.tensor([0, 2, 3]), torch.tensor([5, 1, -1], dtype=torch.int32), torch.tensor([1, 1, 0]) > 0)
    probs = logits.float().softmax(-1)
    assert probs[0].tolist() == [0, 0, 0, 0, 0, 1]
    assert probs[2].tolist() == [0, 1, 0, 0, 0, 0]
    assert logits[[1, 3]].equal(before[[1, 3]])


def test_only_rescues_that_stay_are_counted() -> None:
    rescued = torch.tensor([True, False, True, True, True, True, False])
    assert kept_rescues(rescued, [3, 0, 2, 2], torch.tensor([2, 0, 2, 0])).tolist() == [1, 0, 2, 0]
    assert kept_rescues(rescued, [3, 0, 2, 2], torch.tensor([3, 0, 1, 2])).tolist() == [2, 0, 1, 1]
