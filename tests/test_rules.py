"""Verification rules on hand-made evidence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from judge_decoding import (
    AnyOf,
    Evidence,
    Exact,
    Judge,
    JudgeDecodingError,
    JudgeHead,
    MinProbability,
    TopK,
    VerificationRule,
)
from tiny import AcceptAll, bigram, random_head

# Target probabilities at three positions (two draft tokens and what follows); tokens 0 to 3.
PROBS = torch.tensor([[[0.1, 0.2, 0.3, 0.4], [0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]]])


def evidence(*draft: int, greedy: bool = True, **others: Tensor) -> Evidence:
    return Evidence(torch.tensor([draft]), PROBS.log(), greedy=greedy, **others)


def verdicts(rule: VerificationRule, *draft: int) -> list[bool]:
    return rule.accept(evidence(*draft))[0].tolist()


@pytest.fixture(scope="module")
def judge_head() -> JudgeHead:
    """On hidden states of two numbers, it scores their difference: +8 is sure, 0 is even, -8 is surely not."""
    head = random_head(bigram(torch.zeros(2, 2)))
    head.linear.weight.copy_(torch.tensor([[1.0, -1.0]]))
    return head


def test_each_draft_token_meets_the_distribution_of_its_own_position() -> None:
    assert evidence(3, 0).target_ids.tolist()[0][:2] == [3, 0]
    assert verdicts(Exact(), 3, 0) == [True, True]
    assert verdicts(Exact(), 0, 3) == [False, False]
    assert verdicts(Exact(), 3, 3) == [True, False]


@pytest.mark.parametrize(
    ("k", "draft", "expected"),
    [
        (1, (3, 0), [True, True]),
        (1, (2, 1), [False, False]),
        (2, (2, 1), [True, True]),
        (2, (1, 2), [False, False]),
        (3, (1, 2), [True, True]),
        (3, (0, 3), [False, False]),
        (4, (0, 3), [True, True]),
        (9, (0, 3), [True, True]),
    ],
)
def test_top_k(k: int, draft: tuple[int, int], expected: list[bool]) -> None:
    assert verdicts(TopK(k), *draft) == expected


def test_top_k_is_strict_at_one_when_logits_tie() -> None:
    """16-bit logits tie often; greedy decoding takes the first, and so must the strict setting."""
    tied = Evidence(torch.tensor([[2]]), torch.tensor([[[1.0, 3.0, 3.0], [0.0, 0.0, 0.0]]]))
    assert tied.agreed.tolist() == [[False]]
    assert TopK.strict().accept(tied).tolist() == [[False]]
    assert TopK(2).accept(tied).tolist() == [[True]]


@pytest.mark.parametrize(
    ("p", "draft", "expected"),
    [
        (1.0, (3, 0), [True, True]),
        (1.0, (2, 1), [False, False]),
        (0.25, (2, 1), [True, True]),
        (0.25, (1, 2), [False, False]),
        (0.12, (1, 2), [True, True]),
        (0.0, (0, 3), [True, True]),
    ],
)
def test_min_probability(p: float, draft: tuple[int, int], expected: list[bool]) -> None:
    assert verdicts(MinProbability(p), *draft) == expected


def test_a_probability_of_p_is_not_above_p() -> None:
    """Four equal logits: each token has exactly 1/4."""
    equal = Evidence(torch.tensor([[3]]), torch.zeros(1, 2, 4))
    assert MinProbability(0.25).accept(equal).tolist() == [[False]]
    assert MinProbability(0.249).accept(equal).tolist() == [[True]]


def test_min_probability_is_strict_at_one_for_a_certain_token() -> None:
    sure = Evidence(torch.tensor([[1]]), torch.tensor([[[100.0, 100.0, 0.0], [0.0, 0.0, 0.0]]]))
    assert MinProbability.strict().accept(sure).tolist() == [[False]]


def test_any_of_keeps_what_one_of_its_rules_keeps() -> None:
    assert verdicts(TopK(2) | MinProbability(0.12), 1, 2) == [True, True]
    assert verdicts(TopK(2) | MinProbability(0.25), 2, 2) == [True, False]
    assert verdicts(AnyOf(Exact(), Exact(), AcceptAll()), 0, 3) == [True, True]


def test_any_of_hands_on_norm_and_scores(judge_head: JudgeHead) -> None:
    rule = TopK(1) | Judge(judge_head, 0.5)
    assert rule.norm == judge_head.config.norm
    seen = evidence(0, 0, hidden=torch.tensor([[[3.0, 0.0], [0.0, 3.0]]]))
    scores = rule.scores(seen)
    assert scores is not None
    assert scores[0].tolist() == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3))])
    assert (TopK(1) | Exact()).scores(seen) is None
    assert (TopK(1) | Exact()).norm is None


def test_any_of_refuses_judges_that_look_in_different_places(judge_head: JudgeHead) -> None:
    after = JudgeHead(judge_head.config.model_copy(update={"norm": "after"}))
    with pytest.raises(JudgeDecodingError, match="before and one after"):
        Judge(judge_head) | Judge(after)


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.0, [True, True]), (0.4, [True, False]), (0.9, [True, False]), (1.0, [False, False])]
)
def test_the_judge_compares_its_score_with_the_threshold(
    judge_head: JudgeHead, threshold: float, expected: list[bool]
) -> None:
    seen = evidence(0, 1, hidden=torch.tensor([[[8.0, 0.0], [0.0, 8.0]]]))
    assert Judge(judge_head, threshold).accept(seen)[0].tolist() == expected


def test_the_judge_keeps_what_agrees_whatever_it_scores(judge_head: JudgeHead) -> None:
    seen = evidence(3, 0, hidden=torch.tensor([[[-8.0, 8.0], [-8.0, 8.0]]]))
    assert Judge(judge_head, 0.9).accept(seen)[0].tolist() == [True, True]


def test_a_score_at_the_threshold_is_not_above_it(judge_head: JudgeHead) -> None:
    seen = evidence(0, 1, hidden=torch.zeros(1, 2, 2))
    assert Judge(judge_head, 0.5).accept(seen)[0].tolist() == [False, False]


def test_the_judge_needs_hidden_states(judge_head: JudgeHead) -> None:
    with pytest.raises(JudgeDecodingError, match=r"judge\(threshold=0.5\) reads the target's hidden states"):
        Judge(judge_head, 0.5).accept(evidence(0, 1))
    nothing = Evidence(torch.empty(1, 0, dtype=torch.long), torch.zeros(1, 1, 4))
    assert Judge(judge_head, 0.5).scores(nothing) is None
    assert Judge(judge_head, 0.5).accept(nothing).shape == (1, 0)


def test_the_judge_takes_the_heads_own_threshold(judge_head: JudgeHead) -> None:
    own = JudgeHead(judge_head.config.model_copy(update={"threshold": 0.7}))
    assert Judge(own).threshold == 0.7
    assert Judge(own, 0.2).threshold == 0.2
    assert Judge(own, 0.0).threshold == 0.0


def test_the_judge_reads_16_bit_states(judge_head: JudgeHead) -> None:
    seen = evidence(0, 1, hidden=torch.tensor([[[8.0, 0.0], [0.0, 8.0]]], dtype=torch.bfloat16))
    assert Judge(judge_head, 0.5).accept(seen)[0].tolist() == [True, False]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, math.inf])
def test_a_threshold_out_of_range_is_refused(judge_head: JudgeHead, threshold: float) -> None:
    with pytest.raises(JudgeDecodingError, match="must be between 0"):
        Judge(judge_head, threshold)


@pytest.mark.parametrize("k", [0, -1])
def test_top_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(JudgeDecodingError, match="1 or more"):
        TopK(k)


@pytest.mark.parametrize("p", [-0.1, 1.5, math.nan])
def test_min_probability_out_of_range_is_refused(p: float) -> None:
    with pytest.raises(JudgeDecodingError):
        MinProbability(p)


def test_rules_say_what_they_are(judge_head: JudgeHead) -> None:
    rule = Exact() | Judge(judge_head, 0.25) | TopK(4) | MinProbability(0.5)
    assert repr(rule) == "exact | judge(threshold=0.25) | top_k(k=4) | min_probability(p=0.5)"


def test_residual_is_what_the_target_has_more_than_the_draft() -> None:
    draft = torch.tensor([[[0.4, 0.1, 0.1, 0.4], [0.5, 0.3, 0.15, 0.05]]])
    seen = evidence(0, 0, draft_probs=draft, greedy=False)
    assert seen.residual(0)[0].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 0], abs=1e-6)


def test_residual_of_equal_distributions_is_the_target() -> None:
    seen = evidence(0, 0, draft_probs=torch.cat((PROBS[:, :1], PROBS[:, :1]), dim=1), greedy=False)
    same = Evidence(seen.draft_ids, seen.target_logits, seen.target_probs[:, :-1], greedy=False)
    assert same.residual(0)[0].tolist() == pytest.approx(PROBS[0, 0].tolist())


def test_residual_of_a_certain_draft_is_the_target_without_it() -> None:
    assert evidence(3, 0, greedy=False).residual(0)[0].tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6, 0])
    assert evidence(3, 0, greedy=False).residual(1)[0].tolist() == pytest.approx([0, 0.6, 0.3, 0.1])


@pytest.mark.parametrize(("uniform", "expected"), [(0.0, True), (0.49, True), (0.51, False)])
def test_sampled_tokens_are_kept_with_probability_p_over_q(uniform: float, expected: bool) -> None:
    """Token 1 has p = 0.2 at position 0 and q = 0.4."""
    draft = torch.tensor([[[0.2, 0.4, 0.2, 0.2], [0.0, 1.0, 0.0, 0.0]]])
    seen = evidence(1, 1, draft_probs=draft, uniform=torch.full((1, 2), uniform), greedy=False)
    assert seen.agreed[0, 0].item() is expected


def test_verification_and_residual_give_the_target_exactly() -> None:
    """Over all draft tokens and a fine grid of coin tosses, what comes out has the target's probabilities."""
    draft = torch.tensor([0.4, 0.05, 0.3, 0.25])
    target = PROBS[0, 0]
    tosses = (torch.arange(4000) + 0.5) / 4000
    out = torch.zeros(4)
    for token in range(4):
        seen = Evidence(
            torch.full((4000, 1), token),
            PROBS[:, :2].log().expand(4000, 2, 4),
            draft.expand(4000, 1, 4),
            uniform=tosses[:, None],
            greedy=False,
        )
        kept = seen.agreed.float().mean()
        out[token] += draft[token] * kept
        out += draft[token] * (1 - kept) * seen.residual(0)[0]
    assert out.tolist() == pytest.approx(target.tolist(), abs=1e-3)


def test_a_token_the_target_never_says_is_never_kept() -> None:
    logits = PROBS.log()
    logits[0, 0, 1] = -torch.inf
    seen = Evidence(torch.tensor([[1, 0]]), logits, uniform=torch.zeros(1, 2), greedy=False)
    assert seen.agreed[0].tolist() == [False, True]


def test_any_of_nothing_is_refused() -> None:
    with pytest.raises(JudgeDecodingError, match="no rules"):
        AnyOf()


def test_a_rule_made_of_another_is_not_fused_like_it() -> None:
    """It may decide in another way, which a compiled forward would not do."""

    class Sometimes(Exact):
        def accept(self, evidence: Evidence) -> Tensor:
            return torch.zeros_like(evidence.agreed)

    class Renamed(Exact):
        name = "renamed"

    assert Exact().fused() is not None
    assert Renamed().fused() is not None
    assert Sometimes().fused() is None
