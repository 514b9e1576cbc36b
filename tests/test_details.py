"""What is told about each draft token, where it is asked for."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from judge_decoding import Exact, JudgeDecoder, JudgeHead, Overshoot, PromptLookup, SamplingParams, TopK
from judge_decoding.decoding.verification import detail_columns, details_of
from judge_decoding.rules import Evidence


@pytest.fixture
def decoder(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, draft: PreTrainedModel, head: JudgeHead
) -> JudgeDecoder:
    return JudgeDecoder(target, tokenizer, draft, head, num_draft_tokens=5)


def test_the_numbers_by_hand() -> None:
    p = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.1, 0.7, 0.2, 0.0], [1.0, 0.0, 0.0, 0.0]])
    q = torch.tensor([[0.25, 0.5, 0.25, 0.0], [0.0, 0.0, 0.0, 1.0]])
    ids = torch.tensor([1, 3])
    evidence = Evidence(ids[None], p.log()[None])
    agreed = torch.tensor([[False, True]])
    first, second = details_of(detail_columns(evidence, agreed, q[None])[0].tolist(), 4)
    assert (first.agreed, second.agreed) == (False, True)
    assert first.target_prob == pytest.approx(0.25)
    assert (first.draft_prob, second.draft_prob) == (0.5, 1.0)
    assert (first.rank, second.rank) == (1, None)  # the second has probability 0: ruled out
    assert first.entropy == pytest.approx(0.5 * math.log(2) + 0.25 * math.log(4) + 0.25 * math.log(8))
    assert [token for token, _ in second.alternatives] == [1, 2, 0, 3]
    assert [p for _, p in second.alternatives] == pytest.approx([0.7, 0.2, 0.1, 0.0])
    without = details_of(detail_columns(evidence, agreed, None)[0].tolist(), 4)
    assert [own.draft_prob for own in without] == [None, None]
    assert [own.alternatives for own in without] == [first.alternatives, second.alternatives]


def test_every_draft_token_has_details_that_fit_the_round(decoder: JudgeDecoder) -> None:
    rounds = decoder.generate("red blue", 60, threshold=0.5, details=True).rounds
    assert sum(len(event.draft_ids) for event in rounds) >= 20
    for event in rounds:
        assert event.details is not None
        assert len(event.details) == len(event.draft_ids)
        for own, token, target in zip(event.details, event.draft_ids, event.target_ids, strict=False):
            assert own.agreed == (token == target) == (own.rank == 0)
            assert own.alternatives[0][0] == target
            assert own.draft_prob is not None
            if own.rank is not None and own.rank < len(own.alternatives):
                found, prob = own.alternatives[own.rank]
                assert found == token
                assert prob == pytest.approx(own.target_prob)


def test_nothing_is_told_unasked(decoder: JudgeDecoder) -> None:
    assert all(event.details is None for event in decoder.generate("one two", 12).rounds)


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.5},
        {"threshold": 0.3, "sampling": SamplingParams(temperature=1.0, seed=3)},
        {"rule": TopK(3), "guards": [Overshoot(1.5)]},
        {"rule": Exact(), "sampling": SamplingParams(temperature=0.7, seed=1)},
    ],
)
def test_details_change_no_token(decoder: JudgeDecoder, options: dict[str, object]) -> None:
    without = decoder.generate("red blue", 40, **options)  # type: ignore[arg-type]
    told = decoder.generate("red blue", 40, details=True, **options)  # type: ignore[arg-type]
    assert told.token_ids == without.token_ids
    assert [event.causes for event in told.rounds] == [event.causes for event in without.rounds]
    assert any(event.details for event in told.rounds)


def test_a_drafter_without_probabilities(target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    decoder = JudgeDecoder(target, tokenizer, PromptLookup())
    rounds = decoder.generate("one two one two one two", 30, details=True).rounds
    details = [own for event in rounds for own in event.details or ()]
    assert details
    assert {own.draft_prob for own in details} == {None}


def test_in_a_batch_each_row_has_its_own(decoder: JudgeDecoder) -> None:
    prompts = ["one two", "red blue up"]
    batch = decoder.generate_batch(prompts, 16, threshold=0.5, details=True)
    for prompt, answer in zip(prompts, batch, strict=True):
        alone = decoder.generate(prompt, 16, threshold=0.5, details=True)
        for one, other in zip(answer.rounds, alone.rounds, strict=True):
            assert [own.rank for own in one.details or ()] == [own.rank for own in other.details or ()]
            assert [own.target_prob for own in one.details or ()] == pytest.approx(
                [own.target_prob for own in other.details or ()], abs=1e-4
            )
