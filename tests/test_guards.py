"""Guards forbid rescues and nothing else: where they do, verification is standard."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from judge_decoding import Cause, Evidence, JudgeDecodingError, Round, Stats
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.decoding.guards import (
    Budget,
    Guard,
    History,
    LoopGuard,
    Overshoot,
    Phase,
    StrictStart,
    check_guards,
)
from tiny import VOCAB_SIZE, AcceptAll, Scripted, greedy, llama, run, successor, tokens

RESCUED = Cause.RESCUED


def decoded(*guards: Guard, count: int = 30) -> list[Round]:
    """A draft that has nothing to do with the target, and a rule that keeps all of it."""
    target, drafter = llama(0), DraftModel(llama(7), VOCAB_SIZE)
    return run(target, drafter, [1, 5, 6], AcceptAll(), num_draft_tokens=4, max_new_tokens=count, guards=guards)


def rescues(rounds: list[Round]) -> list[int]:
    """The places of the rescued tokens in the answer."""
    causes = [cause for event in rounds for cause in event.causes]
    return [place for place, cause in enumerate(causes) if cause is RESCUED]


def test_without_guards_all_is_rescued_that_differs() -> None:
    assert rescues(decoded())[0] < 3
    assert len(rescues(decoded())) > 10


@pytest.mark.parametrize("count", [1, 5, 9])
def test_a_strict_start_has_no_rescue_and_says_what_the_target_says(count: int) -> None:
    rounds = decoded(StrictStart(count))
    assert min(rescues(rounds)) >= count
    assert tokens(rounds)[:count] == greedy(llama(0), [1, 5, 6], count)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_a_budget_is_used_up_and_not_exceeded(count: int) -> None:
    rounds = decoded(Budget(count))
    assert len(rescues(rounds)) == count
    if not count:
        assert tokens(rounds) == greedy(llama(0), [1, 5, 6], 30)


def test_all_guards_at_their_strictest_are_exact() -> None:
    for guard in (StrictStart(1000), Budget(0), Overshoot(1.0), Phase([39], [38], "inside")):
        assert tokens(decoded(guard)) == greedy(llama(0), [1, 5, 6], 30), guard


def test_an_overshoot_cap_forbids_what_the_draft_finds_far_likelier() -> None:
    target = torch.tensor([[0.6, 0.3, 0.08, 0.02], [0.25, 0.25, 0.25, 0.25]])
    draft = torch.tensor([[0.1, 0.5, 0.3, 0.1]])
    wanted = torch.tensor([True])
    for token, ratio, allowed in ((1, 2.0, True), (1, 1.5, False), (2, 4.0, True), (2, 3.0, False), (3, 4.0, False)):
        ids, logits = torch.tensor([[token]]), target.log()[None]
        for sampled in (False, True):
            evidence = Evidence(ids, logits, draft_probs=draft[None], greedy=not sampled)
            assert Overshoot(ratio).permit(wanted, evidence, History()).tolist() == [allowed]
    # A draft that tells nothing counts as certain.
    evidence = Evidence(torch.tensor([[1]]), target.log()[None])
    assert Overshoot(3.0).permit(wanted, evidence, History()).tolist() == [False]
    assert Overshoot(3.5).permit(wanted, evidence, History()).tolist() == [True]


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_a_phase_begins_and_ends_with_its_markers(where: str) -> None:
    """The target counts upwards modulo 12; the draft says what is scripted, all of it wrong or a marker."""
    script = [7, 3, 7, 7, 1, 2, 7, 7]  # a phase begins after 3 and ends with 1 2

    def permitted(prompt: list[int]) -> list[bool]:
        evidence = Evidence(torch.tensor([script]), torch.zeros(1, 9, 12))
        guard = Phase([3], [1, 2], where)
        return guard.permit(torch.ones(8, dtype=torch.bool), evidence, History(prompt_ids=prompt)).tolist()

    inside = [False, False, True, True, True, False, False, False]
    flip: Callable[[list[bool]], list[bool]] = (lambda x: x) if where == "inside" else (lambda x: [not b for b in x])
    assert permitted([5, 5]) == flip(inside)
    # Open at the end of the prompt, as a chat template may leave it.
    assert permitted([5, 3]) == flip([True, True, *inside[2:]])
    assert permitted([3, 1, 2]) == flip(inside)


def test_a_phase_is_followed_over_rounds() -> None:
    model = successor()
    drafter = Scripted(lambda ids, count: [9, 9, 4, 9, 9][len(ids) - 1 :][:count])
    rounds = run(
        model, drafter, [3], AcceptAll(), num_draft_tokens=2, max_new_tokens=5, guards=[Phase([4], [6], "outside")]
    )
    # 9 9 are rescued, then 10 is the target's bonus; nothing opens the phase.
    assert tokens(rounds)[:3] == [9, 9, 10]
    opened = run(
        model, drafter, [4], AcceptAll(), num_draft_tokens=2, max_new_tokens=5, guards=[Phase([4], [6], "outside")]
    )
    assert tokens(opened)[:2] == [5, 6]


def test_a_loop_ends_the_rescues() -> None:
    """The draft repeats two tokens for ever; the third time round nothing more is rescued."""
    model = successor()
    drafter = Scripted(lambda ids, count: [5, 9] * count)
    free = run(model, drafter, [3], AcceptAll(), num_draft_tokens=2, max_new_tokens=40)
    assert Stats.of(free).causes[RESCUED] > 15
    guarded = run(
        model, drafter, [3], AcceptAll(), num_draft_tokens=2, max_new_tokens=40, guards=[LoopGuard(tokens=4, times=3)]
    )
    last = max(rescues(guarded))
    assert tokens(guarded)[: last + 1] == tokens(free)[: last + 1]
    ids = tokens(guarded)
    counts = [sum(ids[i : i + 4] == ids[end - 4 : end] for i in range(end - 3)) for end in range(4, last + 2)]
    assert max(counts) == counts[-1] == 3  # the first time an n-gram has come three times, rescues end
    assert all((b - a) % 12 == 1 for a, b in pairwise(ids[last + 1 :]))  # the target counts on by itself


def test_guards_stand_together() -> None:
    rounds = decoded(StrictStart(6), Budget(3))
    assert len(rescues(rounds)) == 3
    assert min(rescues(rounds)) >= 6


def no_ids(_: str) -> list[int]:
    return []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: StrictStart(0), "strict_start's tokens is 0"),
        (lambda: Budget(-1), "budget's tokens is -1"),
        (lambda: Overshoot(0.5), "overshoot's ratio is 0.5"),
        (lambda: Phase([1], [2], "above"), "phase's where is above"),
        (lambda: Phase([], [2], "inside"), "empty marker"),
        (lambda: LoopGuard(0), "loop's tokens is 0"),
        (lambda: LoopGuard(4, 1), "loop's times is 1"),
        (lambda: check_guards([Phase([1], [2], "inside"), Phase([1], [2], "outside")], no_ids), "contradict"),
        (lambda: check_guards([Budget(1), Budget(2)], no_ids), "twice"),
    ],
)
def test_bad_guards(make: Callable[[], object], says: str) -> None:
    with pytest.raises(JudgeDecodingError, match=says):
        make()
