"""Each rule on a few tokens worked out by hand, and what its parameters cannot be."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from judge_decoding import (
    AnyOf,
    Block,
    Cascade,
    Ensemble,
    EntropyGate,
    Evidence,
    Exact,
    Fuzzy,
    JudgeDecodingError,
    KLJudge,
    Lenience,
    MarginRatio,
    Mentored,
    MentoredSimple,
    PromptLookup,
    Relaxed,
    RunningSurprise,
    TopK,
    Typical,
    VerificationRule,
)
from judge_decoding.rules.divergence import js, kl, tv
from tiny import bigram, run

P = [0.5, 0.3, 0.15, 0.05]


def seen(*draft: int, p: list[list[float]] | list[float] = P, q: list[float] | None = None) -> Evidence:
    """A greedy draft; ``p`` of each token or of all, ``q`` of all."""
    rows = p if isinstance(p[0], list) else [p] * len(draft)
    target = torch.tensor([[*rows, [0.25] * 4]]).log()
    told = None if q is None else torch.tensor(q).expand(1, len(draft), 4)
    return Evidence(torch.tensor([draft]), target, draft_probs=told)


def each(rule: VerificationRule, **options: list[float]) -> list[bool]:
    """The verdicts on tokens 0 to 3, all at the same distribution."""
    return [bool(rule.accept(seen(token, **options))[0, 0]) for token in range(4)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (MarginRatio(k=2, ratio=0.2), [True, True, False, False]),
        (MarginRatio(k=3, ratio=0.2), [True, True, True, False]),
        (MarginRatio(k=3, ratio=0.5), [True, True, False, False]),
        (MarginRatio(k=3, ratio=0.7), [True, False, False, False]),
        (MarginRatio(k=4, ratio=0.0), [True, True, True, True]),
        (Relaxed(n=10, delta=0.25), [True, True, False, False]),
        (Relaxed(n=10, delta=0.4), [True, True, True, False]),
        (Relaxed(n=2, delta=0.4), [True, True, False, False]),
        # The entropy is 1.142 nats, exp(-H) = 0.319.
        (Typical(epsilon=0.2, delta=1.0), [True, True, False, False]),
        (Typical(epsilon=0.4, delta=0.4), [True, True, True, False]),
        (Typical(epsilon=0.4, delta=1.0), [True, False, False, False]),
        # Of one token the running mean is its surprise: 1.20 for token 1, 1.90 for token 2.
        (RunningSurprise(epsilon=1.5), [True, True, False, False]),
        (RunningSurprise(epsilon=2.0), [True, True, True, False]),
        (Lenience(0.5), [True, True, False, False]),
        (Lenience(0.29), [True, True, True, False]),
        (MentoredSimple(0.5), [True, True, False, False]),
        (Cascade(0.4), [True, True, False, False]),
        (Cascade(0.7), [True, True, True, False]),
        (Cascade(0.0), [True, False, False, False]),
        (Block(), [True, False, False, False]),
    ],
)
def test_verdicts_at_temperature_zero(rule: VerificationRule, expected: list[bool]) -> None:
    assert each(rule) == expected


@pytest.mark.parametrize(
    ("rule", "q", "expected"),
    [
        # v = 0.5 p + 0.5 q = [0.3, 0.45, 0.15, 0.1]: token 1 is v's best, 0 the target's.
        (Ensemble(0.5), [0.1, 0.6, 0.15, 0.15], [True, True, False, False]),
        (Ensemble(0.9), [0.1, 0.6, 0.15, 0.15], [True, False, False, False]),
        (Ensemble(0.0), [0.1, 0.1, 0.1, 0.7], [True, False, False, True]),
        (Fuzzy(0.1, "tv"), [0.42, 0.3, 0.23, 0.05], [True] * 4),
        (Fuzzy(0.07, "tv"), [0.42, 0.3, 0.23, 0.05], [True, False, False, False]),
        # KL(p || q) = 0.5 log(0.5 / 0.4) + 0.3 log(0.3 / 0.4) = 0.0253
        (Fuzzy(0.026, "kl"), [0.4, 0.4, 0.15, 0.05], [True] * 4),
        (Fuzzy(0.025, "kl"), [0.4, 0.4, 0.15, 0.05], [True, False, False, False]),
        (Fuzzy(0.01, "js"), [0.4, 0.4, 0.15, 0.05], [True] * 4),
        (Fuzzy(0.005, "js"), [0.4, 0.4, 0.15, 0.05], [True, False, False, False]),
        (KLJudge(0.026, confidence=0.6), [0.4, 0.4, 0.15, 0.05], [True] * 4),
        (KLJudge(0.025, confidence=0.6), [0.4, 0.4, 0.15, 0.05], [True, False, False, False]),
        (KLJudge(0.026, confidence=0.4), [0.4, 0.4, 0.15, 0.05], [True, False, False, False]),
        (Mentored(5.0), [0.4, 0.4, 0.15, 0.05], [True] * 4),
        (Mentored(0.0), [0.4, 0.4, 0.15, 0.05], [True, False, False, False]),
    ],
)
def test_verdicts_of_rules_that_compare(rule: VerificationRule, q: list[float], expected: list[bool]) -> None:
    assert each(rule, q=q) == expected


def test_the_divergences() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.25, 0.5])
    assert float(kl(p, q)) == pytest.approx(math.log(2))
    assert float(kl(q, p)) > 10  # finite, for drafts of a smaller vocabulary
    assert float(tv(p, q)) == pytest.approx(0.5)
    middle = 0.5 * math.log(0.5 / 0.375) * 2 / 2 + 0.5 * (0.5 * math.log(0.25 / 0.375) + 0.5 * math.log(2))
    assert float(js(p, q)) == pytest.approx(middle, abs=1e-6)
    assert float(js(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))) == pytest.approx(math.log(2))


def test_the_running_surprise_remembers() -> None:
    """Surprises 0.69, 3.00, 0.69: means 0.69, 0.5 * 0.69 + 0.5 * 3.00 = 1.84, 1.27."""
    draft = seen(0, 3, 0)
    assert RunningSurprise(1.9, beta=0.5).accept(draft)[0].tolist() == [True, True, True]
    assert RunningSurprise(1.8, beta=0.5).accept(draft)[0].tolist() == [True, False, True]
    assert RunningSurprise(1.9, beta=0.0).accept(draft)[0].tolist() == [True, False, True]
    # A sure token before it makes room for a doubtful one; an impossible one leaves none.
    sure = [1.0, 0.0, 0.0, 0.0]
    assert RunningSurprise(1.0, beta=0.5).accept(seen(0, 2, p=[sure, P]))[0].tolist() == [True, True]
    assert RunningSurprise(1.0, beta=0.5).accept(seen(1, 2, p=[sure, P]))[0].tolist() == [False, False]


FLAT, SHARP = [0.3, 0.25, 0.25, 0.2], [0.97, 0.01, 0.01, 0.01]


@pytest.mark.parametrize(
    ("draft", "p", "expected"),
    [
        ((1, 0, 0), [FLAT, SHARP, SHARP], [True, True, True]),  # unsure, then two that agree
        ((1, 0, 0), [SHARP, SHARP, SHARP], [False, True, True]),  # sure of something else
        ((1, 0, 1), [FLAT, SHARP, SHARP], [False, True, False]),  # a mismatch inside the window
        ((0, 1, 0), [FLAT, FLAT, SHARP], [True, False, True]),  # the window reaches beyond the draft
    ],
)
def test_the_entropy_gate_looks_ahead(draft: tuple[int, ...], p: list[list[float]], expected: list[bool]) -> None:
    assert EntropyGate(0.3, window=2).accept(seen(*draft, p=p))[0].tolist() == expected


def test_the_entropy_gate_without_a_window_is_a_gate() -> None:
    assert EntropyGate(0.3, window=0).accept(seen(1, 1, p=[FLAT, SHARP]))[0].tolist() == [True, False]


def drawn(token: int, coin: float, q: list[float], p: list[float] = P) -> Evidence:
    logits = torch.tensor([[p, [0.25] * 4]]).log()
    return Evidence(torch.tensor([[token]]), logits, torch.tensor([[q]]), uniform=torch.tensor([[coin]]), greedy=False)


@pytest.mark.parametrize(
    ("rule", "limit"),
    [
        (Exact(), 0.5),
        (Block(), 0.5),
        (Lenience(0.8), 0.625),
        (MentoredSimple(0.5), 1.0),
        (Ensemble(0.4), 0.8),
        (Cascade(0.2), 0.5 + 0.5 * 0.0),  # token 1 is outside A = {0}; eta = 1 - q(0) = 1, pi(1) = 0.3
        (Cascade(0.5), 1.0),
        (TopK(2), 1.0),
    ],
)
def test_coins_above_temperature_zero(rule: VerificationRule, limit: float) -> None:
    """Token 1 has p = 0.3 and q = 0.6."""
    q = [0.0, 0.6, 0.2, 0.2]
    assert bool(rule.accept(drawn(1, limit - 0.01, q))[0, 0])
    assert bool(rule.accept(drawn(1, min(limit + 0.01, 0.999), q))[0, 0]) is (limit == 1)


def test_block_verification_can_take_back_a_rejection() -> None:
    """Token 1 falls short alone, but with what follows the block as a whole passes."""
    target = torch.tensor([[[0.2, 0.8], [0.9, 0.1], [0.5, 0.5]]]).log()
    draft = torch.tensor([[[0.6, 0.4], [0.3, 0.7]]])
    ids, coins = torch.tensor([[0, 0]]), torch.tensor([[0.9, 0.9]])
    seen = Evidence(ids, target, draft, uniform=coins, greedy=False)
    assert seen.agreed[0].tolist() == [False, True]
    assert Block().accept(seen)[0].tolist() == [True, True]  # w = 1/3, then min(3 * 1/3, 1) = 1


@pytest.mark.parametrize(
    "rule",
    [Lenience(0.01), MentoredSimple(0.99), Mentored(9.0), Cascade(1.0), TopK(4), MarginRatio(4, 0.0), Relaxed(4, 1.0),
     Typical(0.0, 0.0), RunningSurprise(9.0), Block(), Exact()],
    ids=repr,
)  # fmt: skip
def test_a_token_that_was_ruled_out_is_not_kept_for_its_probability(rule: VerificationRule) -> None:
    """By top-k or top-p of the sampling, or another logits processor."""
    assert not rule.accept(drawn(3, 0.0, [0.25] * 4, [0.6, 0.4, 0.0, 0.0]))[0, 0]


@pytest.mark.parametrize("rule", [Mentored(), Ensemble(), Fuzzy(), KLJudge(), TopK(2) | KLJudge()], ids=repr)
def test_rules_that_compare_need_a_draft_with_distributions(rule: VerificationRule) -> None:
    assert rule.needs_draft_probs
    with pytest.raises(JudgeDecodingError, match=r"prompt lookup.*use a draft model") as caught:
        run(bigram(torch.eye(4)), PromptLookup(1), [0, 1, 0], rule)
    assert type(rule.parts[-1]).name in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "name", "values"),
    [
        (MarginRatio, "k", [0]),
        (MarginRatio, "ratio", [-0.1, 1.1, math.nan]),
        (Relaxed, "n", [0]),
        (Relaxed, "delta", [-0.1, 1.1, math.nan]),
        (Typical, "epsilon", [-0.1, 1.1, math.nan]),
        (Typical, "delta", [-0.1, math.inf, math.nan]),
        (RunningSurprise, "epsilon", [-0.1, math.inf, math.nan]),
        (RunningSurprise, "beta", [-0.1, 1.0, math.nan]),
        (EntropyGate, "entropy", [-0.1, 1.1, math.nan]),
        (EntropyGate, "window", [-1]),
        (Lenience, "factor", [0.0, 1.1, math.nan]),
        (MentoredSimple, "alpha", [-0.1, 1.0, math.nan]),
        (Mentored, "kl", [-0.1, math.inf, math.nan]),
        (Ensemble, "weight", [-0.1, 1.1, math.nan]),
        (Cascade, "alpha", [-1.1, 1.1, math.nan]),
        (Fuzzy, "threshold", [-0.1, math.inf, math.nan]),
        (Fuzzy, "divergence", ["hellinger"]),
        (KLJudge, "tau", [-0.1, math.inf, math.nan]),
        (KLJudge, "confidence", [-0.1, 1.1, math.nan]),
    ],
)
def test_parameters_out_of_range(rule: type[VerificationRule], name: str, values: list[float | str]) -> None:
    for value in values:
        with pytest.raises(JudgeDecodingError, match=f"{rule.name}'s {name} is .*; it must be "):
            rule(**{name: value})


def test_block_verification_cannot_be_joined() -> None:
    with pytest.raises(JudgeDecodingError, match="block decides on a draft as a whole"):
        Block() | TopK(2)
    assert AnyOf(Block()).accept(seen(0)).tolist() == [[True]]


def test_two_ways_to_replace_a_token_cannot_be_joined() -> None:
    with pytest.raises(JudgeDecodingError, match=r"mentored\(kl=0.1\) and cascade\(alpha=0.1\) replace"):
        TopK(2) | Mentored() | Cascade()


def test_a_joined_rule_replaces_as_its_part_does() -> None:
    q = [0.1, 0.6, 0.1, 0.2]
    seen, cascade = drawn(1, 0.9, q), Cascade(0.1)
    other: Tensor = (TopK(1) | cascade).replacement(seen, 0)
    assert other.tolist() == cascade.replacement(seen, 0).tolist()
    assert other.tolist() != seen.residual(0).tolist()
    assert (TopK(1) | Lenience()).replacement(seen, 0).tolist() == seen.residual(0).tolist()


def test_joining_flattens() -> None:
    rule = (TopK(2) | Exact()) | (Lenience() | Fuzzy())
    assert [part.name for part in rule.parts] == ["top_k", "exact", "lenience", "fuzzy"]
    assert rule.needs_draft_probs
    assert not rule.needs_draft_hidden
