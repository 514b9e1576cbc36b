"""How many tokens are drafted."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from judge_decoding import Cause, Exact, JudgeDecoder, JudgeDecodingError, Round, TopK
from judge_decoding.core.rounds import Seconds
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.decoding.lengths import AcceptanceModel, Confident, CostOptimal, DraftLength, Fixed, Heuristic
from tiny import VOCAB_SIZE, greedy, llama, perturbed, run, tokens

DRAFT, VERIFY, SLOPE, REST = 1.0, 5.0, 0.05, 0.3


def event(count: int, accepted: int, noise: float = 0.0) -> Round:
    """A round of a machine whose costs are known."""
    causes = (Cause.AGREED,) * accepted + ((Cause.BONUS if accepted == count else Cause.CORRECTION),)
    return Round(
        (7,) * count, (7,) * (accepted + 1), causes, (7,) * (count + 1),
        seconds=Seconds((count * DRAFT) * (1 + noise), (VERIFY + count * SLOPE) * (1 + noise), REST / 2, REST / 2),
    )  # fmt: skip


def simulated(policy: DraftLength, rates: list[float], rounds: int = 400, seed: int = 0) -> tuple[float, list[int]]:
    """Tokens per second, and the lengths chosen, where the k-th draft token is accepted with ``rates[k]``."""
    rng = random.Random(seed)
    made, spent, lengths = 0, 0.0, []
    for _ in range(rounds):
        count = policy.next()
        accepted = 0
        while accepted < count and rng.random() < rates[min(accepted, len(rates) - 1)]:
            accepted += 1
        this = event(count, accepted, noise=rng.choice((0.0, 0.02, 0.05, 0.5)))
        policy.observe(this)
        lengths.append(count)
        made += accepted + 1
        spent += count * DRAFT + VERIFY + count * SLOPE + REST
    return made / spent, lengths


ACCEPTANCE = {
    "never": [0.0],
    "seldom": [0.2],
    "often": [0.7],
    "nearly always": [0.95],
    "always": [1.0],
    "first tokens only": [0.9, 0.9, 0.9, 0.05],
}


@pytest.mark.parametrize("rates", ACCEPTANCE.values(), ids=ACCEPTANCE)
def test_cost_optimal_is_never_much_worse_than_the_best_fixed_length(rates: list[float]) -> None:
    """Times here are made up, so this is arithmetic and not a measurement."""
    best = max(simulated(Fixed(n), rates)[0] for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64))
    best = max(best, 1 / (VERIFY + REST))  # plain decoding
    for start in (1, 8, 32):
        assert simulated(CostOptimal(start), rates)[0] >= 0.93 * best


def test_cost_optimal_stops_drafting_where_nothing_is_accepted_and_tries_again_now_and_then() -> None:
    lengths = simulated(CostOptimal(16), [0.0])[1]
    assert lengths.count(0) > 380
    assert set(lengths[20:]) == {0, 1}
    assert 1 <= sum(lengths[100:]) <= 8


def test_short_answers_do_not_try_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried ever less often is so over all answers, and nothing is sought meanwhile."""
    sought, best = list[int](), AcceptanceModel.best

    def counted(self: AcceptanceModel, longest: int) -> Any:
        sought.append(longest)
        return best(self, longest)

    monkeypatch.setattr(AcceptanceModel, "best", counted)
    taught, lengths = AcceptanceModel(), list[int]()
    for _ in range(8):
        policy = CostOptimal(4)
        policy.remember(taught)
        lengths += simulated(policy, [0.0], rounds=150)[1]
    assert 8 <= sum(lengths[200:]) <= 20
    assert len(sought) <= 40


def test_what_a_draft_reads_after_a_pause_is_not_what_its_tokens_cost() -> None:
    """Otherwise a draft that paused would seem too dear for ever."""
    known = AcceptanceModel()
    for _ in range(20):
        known.add(event(4, 4))
    best = known.best(64)
    for _ in range(40):
        known.add(event(0, 0))
        known.add(slow(event(1, 1)), paused=True)
    assert known.best(64) == best != 0
    for _ in range(20):
        known.add(slow(event(1, 1)))
    assert known.best(64) == 0


def slow(this: Round) -> Round:
    return replace(this, seconds=this.seconds._replace(draft=50 * DRAFT))


def test_a_slow_round_at_first_is_forgotten() -> None:
    policy = CostOptimal(4)
    for number in range(600):
        this = event(count := policy.next(), count)
        policy.observe(slow(this) if number in (1, 2, 3) and count else this)
    assert policy.next() > 10


def test_a_row_notices_that_another_rows_drafts_pay() -> None:
    """The rows of a batch share what they know."""
    taught = AcceptanceModel()
    rows = [CostOptimal(4) for _ in range(2)]
    for row in rows:
        row.remember(taught)
    for _ in range(40):
        for row in rows:
            row.observe(event(row.next(), 0))
    assert [row.next() for row in rows] == [0, 0]
    for _ in range(60):
        taught.add(event(8, 8))
    for _ in range(6):
        lengths = [row.next() for row in rows]
        for row, length in zip(rows, lengths, strict=True):
            row.observe(event(length, length))
    assert min(lengths) > 2


def test_cost_optimal_notices_a_change_for_the_better() -> None:
    taught = AcceptanceModel()
    for rate, rounds in ((0.0, 600), (1.0, 400)):
        policy = CostOptimal(4)
        policy.remember(taught)
        lengths = simulated(policy, [rate], rounds=rounds)[1]
    assert min(lengths[-20:]) > 10


def test_cost_optimal_notices_a_change() -> None:
    policy = CostOptimal(4)
    assert sum(simulated(policy, [0.98])[1][-50:]) > 50 * 10
    assert sum(simulated(policy, [0.1])[1][-50:]) < 50 * 1


def test_what_one_answer_taught_serves_the_next() -> None:
    taught = AcceptanceModel()
    for _ in range(6):  # short answers
        policy = CostOptimal(4)
        policy.remember(taught)
        last = simulated(policy, [0.97], rounds=8)[1]
    afresh = simulated(CostOptimal(4), [0.97], rounds=8)[1]
    assert afresh[0] == 4
    assert min(last) > 10


def test_a_decoder_keeps_experience_by_rule_and_batch_size(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    seen: list[CostOptimal] = []

    def policy(count: int) -> CostOptimal:
        seen.append(CostOptimal(count))
        return seen[-1]

    decoder = JudgeDecoder(target, tokenizer, perturbed(target, 0.05))
    for rule in (Exact(), TopK(2), Exact()):
        decoder.generate(torch.tensor([5, 6, 7]), 20, rule=rule, draft_length=policy)
    prompts = [torch.tensor([5, 6, 7]), torch.tensor([8, 9])]
    decoder.generate_batch(prompts, 20, rule=Exact(), draft_length=policy)
    first, other, again, *batch = (each.experience for each in seen)
    assert first is again
    assert first is not other
    assert batch[0] is batch[1]
    assert batch[0] is not first
    assert first.rounds > 0


def test_a_length_never_tried_is_approached_by_doubling() -> None:
    lengths = simulated(CostOptimal(2), [1.0])[1]
    longest = 0
    for count in lengths:
        assert count <= max(2 * longest, 2)
        longest = max(longest, count)
    assert longest == 64


def test_heuristic_grows_by_two_and_shrinks_by_one() -> None:
    policy = Heuristic(4, longest=7)
    seen = []
    for accepted in (4, 6, 7, 3, 0, 0, 0, 0, 0, 0, 0):
        seen.append(policy.next())
        policy.observe(event(policy.next(), min(accepted, policy.next())))
    assert seen == [4, 6, 7, 7, 6, 5, 4, 3, 2, 1, 1]


@pytest.mark.parametrize("make", [Fixed, Heuristic, Confident, CostOptimal], ids=lambda m: m.__name__)
def test_every_policy_gives_the_targets_tokens(make: type[DraftLength]) -> None:
    target = llama(0)
    drafter = DraftModel(perturbed(target, 0.05), VOCAB_SIZE)
    rounds = run(target, drafter, [1, 5, 6], length=make(5), max_new_tokens=60)  # type: ignore[call-arg]
    assert tokens(rounds) == greedy(target, [1, 5, 6], 60)


def test_an_unsure_draft_ends_early() -> None:
    target, draft = llama(0), perturbed(llama(0), 0.05)

    def drafted(probability: float) -> list[int]:
        drafter = DraftModel(draft, VOCAB_SIZE)
        rounds = run(target, drafter, [1, 5, 6], length=Confident(8, probability), max_new_tokens=60)
        assert tokens(rounds) == greedy(target, [1, 5, 6], 60)
        return [len(r.draft_ids) for r in rounds]

    assert drafted(0.0)[0] == 8
    assert set(drafted(1.0)[:-1]) == {1}
    between = drafted(0.2)
    assert 1 < sum(between) / len(between) < 8


@pytest.mark.parametrize("make", [Fixed, Heuristic, Confident, CostOptimal])
def test_a_length_below_one_is_refused(make: type[DraftLength]) -> None:
    with pytest.raises(JudgeDecodingError, match="must be 1 or more"):
        make(0)  # type: ignore[call-arg]


def test_a_probability_out_of_range_is_refused() -> None:
    with pytest.raises(JudgeDecodingError):
        Confident(4, 1.5)
