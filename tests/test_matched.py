"""The distribution-matched baseline: what a rule keeps, as a truncation of the target, and the target sampled so."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import EpsilonLogitsWarper, EtaLogitsWarper, LogitsProcessor, MinPLogitsWarper, TopKLogitsWarper

from judge_decoding import (
    Evidence,
    JudgeDecodingError,
    MarginRatio,
    MinProbability,
    SamplingParams,
    Stats,
    TopK,
    Typical,
    VerificationRule,
    available_rules,
    parse_rule,
)
from judge_decoding.core.rounds import Cause
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.evaluation.matched import matched_sampling
from judge_decoding.rules.truncation import Truncation
from test_loop_sampling import SIZE, drafter_named, p_value, sampled, tables  # noqa: F401  (a fixture)
from tiny import bigram, random_head

SPELLINGS = [
    "top_k(k=1)", "top_k(k=3)", "top_k(k=50)",
    "min_probability(p=0.0)", "min_probability(p=0.1)", "min_probability(p=0.9)",
    "margin_ratio(k=4, ratio=0.3)", "margin_ratio(k=3, ratio=0.0)", "margin_ratio(k=3, ratio=1.0)",
    "relaxed(n=4, delta=0.2)", "relaxed(n=3, delta=1.0)", "relaxed(n=5, delta=0.0)",
    "typical(epsilon=0.3, delta=0.5)", "typical(epsilon=0.0, delta=0.0)", "typical(epsilon=1.0, delta=0.2)",
    "top_k(k=2) | min_probability(p=0.2)",
]  # fmt: skip
LOOSE = ["top_k(k=3)", "min_probability(p=0.15)", "margin_ratio(k=3, ratio=0.2)", "relaxed(n=4, delta=0.3)", "typical"]


def truncation(spelling: str) -> Truncation:
    found = Truncation.of(parse_rule(spelling))
    assert found is not None
    return found


def cut(rule: VerificationRule, logits: Tensor) -> Tensor:
    found = Truncation.of(rule)
    assert found is not None
    return logits.masked_fill(~found.mask(logits), -torch.inf)


@st.composite
def logits_and_drafts(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits [2, 4, V] of any size, in half of the cases with many ties and forbidden tokens, and drafts [2, 3]."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    size, vocab = draw(st.sampled_from([1e-9, 0.1, 1.0, 5.0])), draw(st.integers(1, 12))
    logits = size * torch.randn(2, 4, vocab, generator=generator)
    if draw(st.booleans()):
        logits = (logits / size).round() * size
        forbidden = torch.rand(2, 4, vocab, generator=generator) < 0.3
        forbidden[..., 0] = False
        logits = logits.masked_fill(forbidden, -torch.inf)
    return logits, torch.randint(vocab, (2, 3), generator=generator)


@given(logits_and_drafts(), st.sampled_from(SPELLINGS), st.booleans())
def test_a_rule_keeps_what_is_agreed_or_in_its_truncation(
    case: tuple[Tensor, Tensor], spelling: str, greedy: bool
) -> None:
    logits, ids = case
    seen = Evidence(
        ids, logits, greedy=greedy, uniform=torch.rand(ids.shape, generator=torch.Generator().manual_seed(0))
    )
    kept = truncation(spelling).mask(logits)
    # Above temperature 0 a rule may refuse even the best token, which a truncation cannot do without.
    best = (ids == seen.target_ids[:, :-1]) & ~torch.tensor(greedy)
    accepted = parse_rule(spelling).accept(seen)
    assert torch.equal(accepted | best, seen.agreed | seen.of_tokens(kept) | best)
    assert kept.gather(-1, seen.target_ids[..., None]).all()
    assert not kept[logits == -torch.inf].any()


@pytest.mark.parametrize(
    ("rule", "warper"),
    [
        (TopK(4), TopKLogitsWarper(4)),
        (MarginRatio(k=50, ratio=0.2), MinPLogitsWarper(0.2)),
        (MinProbability(0.1), EpsilonLogitsWarper(0.1)),
        (Typical(0.3, math.sqrt(0.3)), EtaLogitsWarper(0.3)),
    ],
    ids=["top_k", "min_p", "epsilon", "eta"],
)
def test_a_truncation_is_the_one_that_transformers_knows(rule: VerificationRule, warper: LogitsProcessor) -> None:
    for size in (0.3, 1.0, 3.0):
        logits = size * torch.randn(200, 50, generator=torch.Generator().manual_seed(1))
        found = cut(rule, logits)
        assert torch.equal(found, warper(torch.zeros(200, 1, dtype=torch.long), logits))
        assert (found == -torch.inf).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spelling", "temperature"), [*zip(LOOSE, (0.7, 1.3, 0.7, 1.3, 0.7), strict=True), ("typical", 1.3)]
)
def test_what_is_sampled_has_the_truncated_distribution(
    tables: tuple[Tensor, Tensor],  # noqa: F811
    spelling: str,
    temperature: float,
) -> None:
    """Chi-square against the target's probabilities of the kept tokens, renormalised, none of the others."""
    target, draft = tables
    expected = cut(parse_rule(spelling), target / temperature)
    assert 0 < (expected == -torch.inf).sum() < expected.numel() - SIZE
    # Prompt lookup and no draft once each: what is cut off does not depend on who drafts.
    others = {("typical", 1.3): ["prompt lookup"], ("typical", 0.7): ["none"]}
    for name in ["draft model", *others.get((spelling, temperature), [])]:
        chains, rounds = sampled(
            target, drafter_named(name, draft), seed=7, temperature=temperature, truncation=truncation(spelling)
        )
        assert p_value(chains, expected, {"temperature": 1.0}) > 1e-3
        # The rule, at temperature 0 of these logits, refuses none of it.
        ids = torch.tensor(chains)
        seen = Evidence(ids[:, 1:], (target / temperature)[ids])
        assert parse_rule(spelling).accept(seen).all()
        if name == "draft model":
            causes = Stats.of(rounds).causes
            assert min(causes[Cause.AGREED], causes[Cause.CORRECTION]) > 50


def test_the_chi_square_would_notice_the_whole_distribution(tables: tuple[Tensor, Tensor]) -> None:  # noqa: F811
    target, draft = tables
    chains, _ = sampled(target, DraftModel(bigram(draft), SIZE), seed=7, temperature=1.0)
    assert p_value(chains, target, {"temperature": 1.0}) > 1e-3
    with pytest.raises(AssertionError, match="probability 0"):
        p_value(chains, cut(TopK(3), target), {"temperature": 1.0})


def test_the_truncation_comes_after_the_other_settings(tables: tuple[Tensor, Tensor]) -> None:  # noqa: F811
    """A rule reads what is left by top-k, renormalised: of two tokens both have much."""
    target = tables[0]
    two = TopKLogitsWarper(2)(torch.zeros(SIZE, 1, dtype=torch.long), target)
    expected = cut(MinProbability(0.4), two)
    assert not torch.equal(expected, cut(MinProbability(0.4), target))
    chains, _ = sampled(target, None, seed=2, temperature=1.0, top_k=2, truncation=truncation("min_probability(p=0.4)"))
    assert p_value(chains, expected, {"temperature": 1.0}) > 1e-3


def test_the_baseline_of_a_greedy_rule_samples_at_temperature_1() -> None:
    rule = TopK(4)
    greedy = SamplingParams(top_p=0.5, top_k=3, min_p=0.1, repetition_penalty=1.1, seed=3)
    found = matched_sampling(rule, greedy)
    # Temperature 0 does not read top-p and its like, so the baseline has none of them.
    assert found == SamplingParams(
        temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.1, seed=3, truncation=Truncation((rule,))
    )
    warm = SamplingParams(temperature=0.6, top_p=0.5, seed=3)
    assert matched_sampling(rule, warm) == SamplingParams(
        temperature=0.6, top_p=0.5, seed=3, truncation=Truncation((rule,))
    )


def test_which_rules_have_a_baseline() -> None:
    head = random_head(bigram(torch.zeros(6, 6)))
    lossy = {name: parse_rule(f"{name}(k=2)" if name == "top_k" else f"{name}(p=0.2)" if name == "min_probability"
                              else name, head) for name in available_rules()}  # fmt: skip
    have = {name for name, rule in lossy.items() if matched_sampling(rule, SamplingParams()) is not None}
    assert have == {"top_k", "min_probability", "margin_ratio", "relaxed", "typical"}
    # Joined: the union, if all have one; at their strict setting, the target itself is the baseline.
    assert matched_sampling(parse_rule("top_k(k=2) | typical"), SamplingParams()) is not None
    assert matched_sampling(parse_rule("top_k(k=2) | judge", head), SamplingParams()) is None
    assert matched_sampling(TopK(1), SamplingParams(temperature=1.0)) is None


def test_a_truncation_needs_a_temperature() -> None:
    with pytest.raises(JudgeDecodingError, match=r"The truncation top_k\(k=4\) .* give a temperature above 0"):
        SamplingParams(truncation=Truncation((TopK(4),)))


def test_a_sampling_is_truncated_once() -> None:
    sampling = SamplingParams(temperature=1.0, truncation=Truncation((TopK(4),)))
    with pytest.raises(JudgeDecodingError, match="already truncated"):
        matched_sampling(TopK(3), sampling)
