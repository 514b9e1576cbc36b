"""Temperature 0: exact verification says what `generate` says, whatever is drafted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel

from judge_decoding import Cause, Exact, Judge, JudgeHead, MinProbability, PromptLookup, Stats, TopK, VerificationRule
from judge_decoding.decoding.drafters.base import Drafter, DraftRequest, TokenBuffer
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.decoding.sampling import Sampler, SamplingParams
from tiny import (
    EOS,
    VOCAB_SIZE,
    AcceptAll,
    Scripted,
    llama,
    mistral,
    perturbed,
    random_head,
    run,
    tokens,
)
from tiny import greedy as generated

PROMPTS = {
    "one token": [5],
    "several": [1, 5, 6, 7, 8],
    "repeating": [1, 9, 10, 11, 9, 10, 12, 9, 10, 11, 9, 10],
}
DRAFTERS = ("draft model", "target itself", "prompt lookup", "none")


def greedy(model: PreTrainedModel, prompt: Sequence[int], count: int = 24, **options: float) -> list[int]:
    """See `tiny.greedy`: asked once for each model, none of which changes here."""
    return list(_generated(model, tuple(prompt), count, **options))


@cache
def _generated(model: PreTrainedModel, prompt: tuple[int, ...], count: int, **options: float) -> list[int]:
    return generated(model, prompt, count, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def windowed() -> PreTrainedModel:
    """A window of 8 tokens."""
    return mistral()


def make_drafter(name: str, target: PreTrainedModel, draft: PreTrainedModel) -> Drafter | None:
    if name == "draft model":
        return DraftModel(draft, VOCAB_SIZE)
    if name == "target itself":
        return DraftModel(target, VOCAB_SIZE)
    return PromptLookup() if name == "prompt lookup" else None


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize(("name", "length"), [*((name, n) for name in DRAFTERS[:3] for n in (1, 5, 16)), ("none", 1)])
def test_exact_says_what_generate_says(
    target: LlamaForCausalLM, draft: PreTrainedModel, name: str, prompt: list[int], length: int
) -> None:
    rounds = run(target, make_drafter(name, target, draft), prompt, num_draft_tokens=length)
    assert tokens(rounds) == greedy(target, prompt)


def test_the_drafts_of_these_tests_are_partly_accepted(target: LlamaForCausalLM, draft: PreTrainedModel) -> None:
    """Parity proves little unless drafts are both accepted and rejected."""
    rounds = [r for prompt in PROMPTS.values() for r in run(target, DraftModel(draft, VOCAB_SIZE), prompt)]
    causes = Stats.of(rounds).causes
    assert min(causes[Cause.AGREED], causes[Cause.CORRECTION], causes[Cause.BONUS]) > 3


def test_a_draft_equal_to_the_target_is_always_accepted(target: LlamaForCausalLM) -> None:
    rounds = run(target, DraftModel(target, VOCAB_SIZE), PROMPTS["several"], num_draft_tokens=5, max_new_tokens=24)
    assert [len(r.token_ids) for r in rounds] == [6, 6, 6, 6]
    assert all(r.accepted == 5 and r.causes[-1] == Cause.BONUS for r in rounds)


def test_without_a_draft_each_round_is_one_bonus_token(target: LlamaForCausalLM) -> None:
    rounds = run(target, None, PROMPTS["several"], max_new_tokens=5)
    assert [(r.draft_ids, r.causes) for r in rounds] == [((), (Cause.BONUS,))] * 5


def strict_rules(head: JudgeHead) -> dict[str, VerificationRule]:
    return {
        "judge": Judge(head, 1.0),
        "top_k": TopK.strict(),
        "min_probability": MinProbability.strict(),
        "any of them": Judge(head, 1.0) | TopK(1) | Exact(),
    }


@pytest.mark.parametrize("name", ["judge", "top_k", "min_probability", "any of them"])
def test_strict_settings_equal_exact(
    target: LlamaForCausalLM, draft: PreTrainedModel, head: JudgeHead, name: str
) -> None:
    for prompt in PROMPTS.values():
        exact = run(target, DraftModel(draft, VOCAB_SIZE), prompt)
        strict = run(target, DraftModel(draft, VOCAB_SIZE), prompt, strict_rules(head)[name])
        assert [(r.token_ids, r.causes) for r in strict] == [(r.token_ids, r.causes) for r in exact]


def test_a_judge_whose_scores_round_to_one_is_still_strict_at_one(
    target: LlamaForCausalLM, draft: PreTrainedModel
) -> None:
    sure = random_head(target)
    sure.linear.bias.fill_(1000.0)
    prompt = PROMPTS["several"]
    assert tokens(run(target, DraftModel(draft, VOCAB_SIZE), prompt, Judge(sure, 1.0))) == greedy(target, prompt)


@pytest.mark.parametrize("bias", [0.0, -1000.0])
def test_threshold_zero_accepts_every_draft_token(target: LlamaForCausalLM, bias: float) -> None:
    """Also tokens whose score float32 rounds to 0; the text is then the draft's, but for the bonus tokens."""
    head = random_head(target)
    head.linear.bias.fill_(bias)
    other = llama(7)
    rounds = run(
        target, DraftModel(other, VOCAB_SIZE), [1, 5, 6], Judge(head, 0.0), num_draft_tokens=3, max_new_tokens=16
    )
    assert [r.accepted for r in rounds] == [3, 3, 3, 3]
    so_far = [1, 5, 6]
    for event in rounds:
        assert event.token_ids[:3] == tuple(greedy(other, so_far, 3))
        so_far += event.token_ids
        assert [so_far[-1]] == greedy(target, so_far[:-1], 1)


def test_a_judge_between_the_two_rescues_some_tokens_and_rejects_some(
    target: LlamaForCausalLM, head: JudgeHead
) -> None:
    causes = Stats.of(run(target, DraftModel(llama(7), VOCAB_SIZE), [1, 5, 6], Judge(head, 0.5))).causes
    assert causes[Cause.RESCUED] > 0
    assert causes[Cause.CORRECTION] > 0


def test_the_judge_rescues_exactly_the_tokens_scored_above_its_threshold(
    target: LlamaForCausalLM, head: JudgeHead
) -> None:
    seen: set[Cause] = set()
    for event in run(target, DraftModel(llama(7), VOCAB_SIZE), [1, 5, 6], Judge(head, 0.5), max_new_tokens=40):
        assert event.scores is not None
        kept = [
            score > 0.5 or token == own
            for score, token, own in zip(event.scores, event.draft_ids, event.target_ids, strict=False)
        ]
        assert event.accepted == ([*kept, False]).index(False)
        seen.update(event.causes)
    assert Cause.RESCUED in seen


@pytest.mark.parametrize("penalty", [1.3, 0.8])
@pytest.mark.parametrize("name", DRAFTERS)
def test_repetition_penalty_says_what_generate_says(
    target: LlamaForCausalLM, draft: PreTrainedModel, name: str, penalty: float
) -> None:
    for prompt in PROMPTS.values():
        rounds = run(target, make_drafter(name, target, draft), prompt, repetition_penalty=penalty)
        assert tokens(rounds) == greedy(target, prompt, repetition_penalty=penalty)


def test_repetition_penalty_changes_these_answers(target: LlamaForCausalLM) -> None:
    assert greedy(target, PROMPTS["several"]) != greedy(target, PROMPTS["several"], repetition_penalty=1.3)


@pytest.mark.parametrize("prompt", [[5], [1, 5, 6, 7], list(range(1, 30))], ids=["one", "inside", "beyond"])
@pytest.mark.parametrize(("name", "length"), [*((name, n) for name in DRAFTERS[:3] for n in (3, 12)), ("none", 1)])
def test_sliding_window_says_what_generate_says(
    windowed: PreTrainedModel, name: str, prompt: list[int], length: int
) -> None:
    """Rounds begin inside the window, cross its edge, and take back more than it holds."""
    drafter = make_drafter(name, windowed, perturbed(windowed))
    rounds = run(windowed, drafter, prompt, num_draft_tokens=length, max_new_tokens=24)
    assert tokens(rounds) == greedy(windowed, prompt, 24)


@pytest.mark.parametrize("size", [VOCAB_SIZE - 6, VOCAB_SIZE + 24])
def test_a_draft_padded_to_another_vocabulary_size(target: LlamaForCausalLM, size: int) -> None:
    """One family pads its embeddings to different sizes; the target may even say a token the draft lacks."""
    drafter = DraftModel(llama(3, vocab_size=size), VOCAB_SIZE)
    for prompt in PROMPTS.values():
        assert tokens(run(target, drafter, prompt)) == greedy(target, prompt)


def test_the_target_of_the_padding_test_says_tokens_the_draft_lacks(target: LlamaForCausalLM) -> None:
    assert max(max(greedy(target, prompt)) for prompt in PROMPTS.values()) >= VOCAB_SIZE - 6


def test_a_smaller_draft_accepted_whole_is_the_draft(target: LlamaForCausalLM) -> None:
    """Padding adds no token, and cutting takes only padding."""
    small = llama(3, vocab_size=VOCAB_SIZE - 6)
    first = run(target, DraftModel(small, VOCAB_SIZE), [5, 6], AcceptAll(), num_draft_tokens=6)[0]
    assert list(first.draft_ids) == greedy(small, [5, 6], 6)
    assert max(first.draft_ids) < VOCAB_SIZE - 6


def test_generation_that_stops_says_what_generate_says(target: LlamaForCausalLM, draft: PreTrainedModel) -> None:
    stopped = 0
    for first in range(4, 20):
        rounds = run(
            target, DraftModel(draft, VOCAB_SIZE), [1, first], num_draft_tokens=5, max_new_tokens=40, end_ids=[EOS]
        )
        assert tokens(rounds) == greedy(target, [1, first], 40, stop=True)
        stopped += rounds[-1].stopped
    assert stopped > 3


def test_prompt_lookup_takes_the_latest_longest_match() -> None:
    lookup = PromptLookup()
    sampler = Sampler(SamplingParams(), torch.device("cpu"))

    def propose(ids: list[int], count: int) -> list[int]:
        return lookup.propose([DraftRequest(0, TokenBuffer(torch.tensor(ids)), count, sampler)])[0].ids.tolist()

    assert propose([1, 2, 3, 9, 5, 2, 3, 7, 1, 2, 3], 2) == [9, 5]  # three tokens match, though two match later
    assert propose([2, 3, 8, 2, 3, 7, 2, 3], 1) == [7]  # the latest of two matches
    assert propose([4, 4], 5) == [4]  # no more than there is
    assert propose([1, 2, 3], 5) == []
    assert propose([1], 5) == []


def test_scripted_drafts_of_any_quality_do_not_change_the_text(target: LlamaForCausalLM) -> None:
    """Rejections at every position of a draft: right up to position k, wrong from there."""
    prompt = PROMPTS["several"]
    truth = greedy(target, prompt, 40)

    def script(ids: list[int], count: int) -> list[int]:
        done = len(ids) - len(prompt)
        right = truth[done : done + count]
        k = done % (count + 1)
        return [*right[:k], *((t + 1) % VOCAB_SIZE for t in right[k:])]

    assert tokens(run(target, Scripted(script), prompt, num_draft_tokens=5, max_new_tokens=30)) == truth[:30]
