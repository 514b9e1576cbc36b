"""What a round keeps, why, and what is counted; hand-counted on a model that counts 0, 1, 2, ... 11, 0, ..."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from judge_decoding import Cause, Evidence, Judge, Round, Stats, VerificationRule, decode
from judge_decoding.rules import Exact
from tiny import AcceptAll, Scripted, random_head, request, run, successor, tokens

AGREED, RESCUED, CORRECTION, BONUS = Cause.AGREED, Cause.RESCUED, Cause.CORRECTION, Cause.BONUS

COUNTING = successor()


def drafts(*plan: list[int]) -> Scripted:
    """Proposes the planned drafts, one a round."""
    left = iter(plan)
    return Scripted(lambda _ids, _count: next(left))


class Keeps(VerificationRule):
    """Keeps what is agreed, and the named tokens."""

    def __init__(self, *extra: int) -> None:
        self.extra = torch.tensor(extra)

    def accept(self, evidence: Evidence) -> Tensor:
        return evidence.agreed | torch.isin(evidence.draft_ids, self.extra)


def kept(rounds: list[Round]) -> list[tuple[tuple[int, ...], tuple[Cause, ...]]]:
    return [(r.token_ids, r.causes) for r in rounds]


def test_causes_and_counts_of_exact_verification() -> None:
    rounds = run(successor(), drafts([4, 5, 6], [8, 0, 10], []), [2, 3], num_draft_tokens=3, max_new_tokens=7)
    assert kept(rounds) == [
        ((4, 5, 6, 7), (AGREED, AGREED, AGREED, BONUS)),
        ((8, 9), (AGREED, CORRECTION)),  # the 10 is not what follows 0, and comes after a rejection
        ((10,), (BONUS,)),
    ]
    assert [r.target_ids for r in rounds] == [(4, 5, 6, 7), (8, 9, 1, 11), (10,)]
    figures = Stats.of(rounds).to_dict()
    spent = figures.pop("seconds")
    assert isinstance(spent, dict)
    assert set(spent) == {"draft", "verify", "rule", "overhead"}
    assert all(seconds > 0 for seconds in spent.values())
    assert figures == {
        "rounds": 3,
        "tokens": 7,
        "drafted": 6,
        "agreed": 4,
        "rescued": 0,
        "correction": 1,
        "bonus": 2,
        "accepted_per_round": 4 / 3,
        "tokens_per_forward": 7 / 3,
        "mean_acceptance_length": 7 / 3,
        "acceptance_rate": 4 / 6,
        # Two drafts of three: both kept their first token, one the others.
        "acceptance_by_position": [1.0, 0.5, 0.5],
        "accepted_lengths": {"0": 1, "1": 1, "3": 1},
        "rescued_by": {},
        "prompts_measured": 0,
        "prompts_unlike_training": 0,
    }


def test_a_token_that_agrees_after_a_rejected_one_is_not_kept() -> None:
    rounds = run(successor(), drafts([5, 6, 7], [], []), [3], num_draft_tokens=3, max_new_tokens=4)[:1]
    assert kept(rounds) == [((4,), (CORRECTION,))]


def test_causes_of_a_lossy_rule() -> None:
    """The target goes on from a rescued token: after 9 it says 10."""
    plan = drafts([4, 9, 10, 0], [0, 9, 3], [9])
    rounds = run(successor(), plan, [3], Keeps(9), num_draft_tokens=4, max_new_tokens=9)
    assert kept(rounds) == [
        ((4, 9, 10, 11), (AGREED, RESCUED, AGREED, CORRECTION)),
        ((0, 9, 10), (AGREED, RESCUED, CORRECTION)),
        ((9, 10), (RESCUED, BONUS)),
    ]
    stats = Stats.of(rounds)
    assert (stats.accepted, stats.causes[AGREED], stats.causes[RESCUED]) == (6, 3, 3)
    assert [r.accepted for r in rounds] == [3, 2, 1]


@pytest.mark.parametrize(
    ("draft", "rule", "expected"),
    [
        ([4, 5, 6, 7], Exact(), ((4, 5, 6), (AGREED, AGREED, AGREED))),
        ([4, 5, 6], Exact(), ((4, 5, 6), (AGREED, AGREED, AGREED))),  # no bonus after the end
        ([4, 5], Exact(), ((4, 5, 6), (AGREED, AGREED, BONUS))),
        ([4, 5, 9], Exact(), ((4, 5, 6), (AGREED, AGREED, CORRECTION))),
        ([6, 9, 6, 1], AcceptAll(), ((6,), (RESCUED,))),
    ],
)
def test_nothing_after_an_end_token_is_kept_or_counted(
    draft: list[int], rule: VerificationRule, expected: tuple[tuple[int, ...], tuple[Cause, ...]]
) -> None:
    rounds = run(successor(), drafts(draft), [3], rule, num_draft_tokens=4, max_new_tokens=20, end_ids=[6])
    assert kept(rounds) == [expected]
    assert rounds[0].stopped
    stats = Stats.of(rounds)
    assert (stats.tokens, stats.causes.total()) == (len(expected[0]), len(expected[0]))
    assert stats.accepted == rounds[0].accepted == sum(c in (AGREED, RESCUED) for c in expected[1])


def test_a_rejected_end_token_stops_nothing() -> None:
    rounds = run(successor(), drafts([6, 6], [5]), [3], num_draft_tokens=2, max_new_tokens=3, end_ids=[6])
    assert [(r.token_ids, r.stopped) for r in rounds] == [((4,), False), ((5, 6), True)]


def test_any_of_several_end_tokens_stops() -> None:
    assert tokens(run(successor(), None, [3], end_ids=[9, 6])) == [4, 5, 6]


@pytest.mark.parametrize("budget", range(1, 14))
def test_the_token_budget_is_met_exactly(budget: int) -> None:
    asked = []

    def script(ids: list[int], count: int) -> list[int]:
        asked.append((len(ids) - 1, count))
        return [(ids[-1] + i) % 12 for i in range(1, count + 1)]

    rounds = run(successor(), Scripted(script), [0], num_draft_tokens=4, max_new_tokens=budget)
    assert tokens(rounds) == [i % 12 for i in range(1, budget + 1)]
    assert Stats.of(rounds).tokens == budget
    # The token that follows the draft needs room too.
    assert asked == [(done, min(4, budget - done - 1)) for done in range(0, budget - 1, 5)]


@given(
    plan=st.lists(st.lists(st.integers(0, 11), max_size=6), min_size=20, max_size=20),
    start=st.integers(0, 11),
    budget=st.integers(1, 20),
    ends=st.frozensets(st.integers(0, 11), max_size=2),
)
def test_any_drafts_give_the_same_answer(plan: list[list[int]], start: int, budget: int, ends: frozenset[int]) -> None:
    """Also drafters that propose more or less than they were asked for."""
    truth = [(start + i) % 12 for i in range(1, budget + 1)]
    stop = next((i + 1 for i, token in enumerate(truth) if token in ends), budget)
    rounds = run(COUNTING, drafts(*plan), [start], num_draft_tokens=4, max_new_tokens=budget, end_ids=ends)
    assert tokens(rounds) == truth[:stop]
    assert [r.stopped for r in rounds[:-1]] == [False] * (len(rounds) - 1)
    assert rounds[-1].stopped == (truth[stop - 1] in ends)
    for r in rounds:
        assert len(r.causes) == len(r.token_ids) > 0
        assert len(r.target_ids) == len(r.draft_ids) + 1
        assert r.token_ids[: r.accepted] == r.draft_ids[: r.accepted]
        assert len(r.token_ids) - r.accepted in (0, 1)


def test_callers_are_not_in_inference_mode_between_rounds() -> None:
    rounds: Any = decode(COUNTING, None, [request(COUNTING, [3], max_new_tokens=3)])
    next(rounds)
    assert not torch.is_inference_mode_enabled()
    rounds.close()


def test_one_token_needs_no_draft() -> None:
    rounds = run(successor(), drafts(), [3], max_new_tokens=1)
    assert [(r.token_ids, r.draft_ids, r.causes) for r in rounds] == [((4,), (), (BONUS,))]


def test_a_drafter_that_proposes_too_many_is_cut_at_the_budget() -> None:
    rounds = run(successor(), drafts([4, 5, 6, 7, 8]), [3], num_draft_tokens=2, max_new_tokens=2, end_ids=[6])
    assert kept(rounds) == [((4, 5), (AGREED, AGREED))]
    assert not rounds[0].stopped


def test_the_drafter_is_told_all_kept_tokens_and_nothing_else() -> None:
    seen = []

    def script(ids: list[int], count: int) -> list[int]:
        seen.append(ids)
        return [ids[-1] + 1, 0, 0][:count]

    run(successor(), Scripted(script), [1, 2], num_draft_tokens=3, max_new_tokens=6)
    assert seen == [[1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6]]


def test_a_round_without_proposals_has_no_scores() -> None:
    model = successor()
    rounds = run(model, drafts([], [5]), [3], Judge(random_head(model), 0.5), num_draft_tokens=1, max_new_tokens=3)
    assert rounds[0].scores is None
    assert rounds[1].scores is not None
    assert len(rounds[1].scores) == 1


def test_scores_are_the_heads_own_at_the_draft_tokens() -> None:
    """In this model the hidden state at token i is a one-hot i, so the score of token i is known."""
    model = successor()
    head = random_head(model, norm="after")
    event = run(model, drafts([4, 9, 1]), [3], Judge(head, 0.0), num_draft_tokens=3, max_new_tokens=4)[0]
    expected = torch.sigmoid(12**0.5 * head.linear.weight[0, [4, 9, 1]])
    assert event.scores == pytest.approx(expected.tolist(), rel=1e-5)


def test_statistics_add_up() -> None:
    first = Round((1, 2), (1, 5), (AGREED, CORRECTION), (1, 5, 6))
    second = Round((1, 2), (1, 2, 6), (AGREED, RESCUED, BONUS), (1, 5, 6))
    apart = Stats.of([first])
    apart.merge(Stats.of([second]))
    assert apart == Stats.of([first, second])
    assert (apart.rounds, apart.drafted, apart.tokens, apart.accepted) == (2, 4, 5, 3)
    assert (apart.accepted_per_round, apart.tokens_per_forward) == (1.5, 2.5)
    assert (Stats().accepted_per_round, Stats().tokens_per_forward) == (0.0, 0.0)


@pytest.mark.parametrize("finish", [True, False])
def test_nothing_stays_hooked_into_the_target(finish: bool) -> None:
    model = successor()
    asked = request(model, [3], Judge(random_head(model), 0.5), num_draft_tokens=1, max_new_tokens=6)
    rounds: Any = decode(model, drafts([4], [6], [8]), [asked])
    next(rounds)
    assert not model.model.norm._forward_hooks  # between two rounds the caller may use the model
    if finish:
        list(rounds)
    else:
        rounds.close()
    assert not model.model.norm._forward_hooks
