"""A batch gives every row exactly what it gets alone."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from judge_decoding import Exact, Judge, JudgeHead, PromptLookup, Round, TopK, VerificationRule
from judge_decoding.decoding.drafters.base import Drafter
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.decoding.loop import decode
from judge_decoding.decoding.request import Request
from judge_decoding.models.abilities import can_batch
from judge_decoding.models.cached_lm import CachedLM
from tiny import EOS, VOCAB_SIZE, AcceptAll, llama, mistral, perturbed, random_head, request, run, tokens

PROMPTS = [
    [5],
    [1, 5, 6, 7, 8],
    list(range(4, 30)),
    [9, 9, 9],
    [1, 30, 31, 32, 33, 34, 35],
    [7, 8],
    [3, 4, 5],
    [20] * 12,
]
BUDGETS = [24, 3, 40, 1, 17, 24, 31, 9]


def together(target: PreTrainedModel, drafter: Drafter | None, requests: list[Request]) -> list[list[Round]]:
    rounds: list[list[Round]] = [[] for _ in requests]
    for row, event in decode(target, drafter, requests):
        rounds[row].append(event)
    return rounds


def rules(head: JudgeHead) -> list[VerificationRule]:
    return [Exact(), Judge(head, 0.5), AcceptAll(), TopK(3), Judge(head, 0.3) | TopK(2)]


@pytest.mark.parametrize("drafting", ["draft model", "prompt lookup", "none"])
def test_each_row_gets_the_rounds_it_gets_alone(drafting: str) -> None:
    """Rows of other rules, lengths, budgets and end tokens beside it; rows that finish leave."""
    target, draft = llama(0), perturbed(llama(0), 0.05)
    head = random_head(target)

    def drafter() -> Drafter | None:
        made: dict[str, Drafter] = {"draft model": DraftModel(draft, VOCAB_SIZE), "prompt lookup": PromptLookup()}
        return made.get(drafting)

    def requests() -> list[Request]:
        return [
            request(
                target, PROMPTS[i], rules(head)[i % 5], num_draft_tokens=2 + i, max_new_tokens=BUDGETS[i],
                end_ids=[EOS] if i % 2 else [],
            )
            for i in range(8)
        ]  # fmt: skip

    alone = [next(iter(together(target, drafter(), [each]))) for each in requests()]
    batch = together(target, drafter(), requests())
    assert len({len(rounds) for rounds in batch}) > 1
    for one, other in zip(batch, alone, strict=True):
        assert [(r.draft_ids, r.token_ids, r.causes) for r in one] == [
            (r.draft_ids, r.token_ids, r.causes) for r in other
        ]
        for ours, theirs in zip(one, other, strict=True):
            assert (ours.scores is None) == (theirs.scores is None)
            assert ours.scores is None or ours.scores == pytest.approx(theirs.scores, abs=1e-4)


def test_sampled_rows_get_what_they_get_alone() -> None:
    target, draft = llama(0), perturbed(llama(0), 0.05)

    def requests() -> list[Request]:
        return [
            request(target, p, max_new_tokens=12, temperature=1.5, top_p=0.9, seed=i) for i, p in enumerate(PROMPTS[:4])
        ]

    batch = together(target, DraftModel(draft, VOCAB_SIZE), requests())
    alone = [together(target, DraftModel(draft, VOCAB_SIZE), [each])[0] for each in requests()]
    assert [tokens(rounds) for rounds in batch] == [tokens(rounds) for rounds in alone]


def test_judges_of_both_norms_share_a_batch() -> None:
    target, draft = llama(0), perturbed(llama(0), 0.05)
    heads = [random_head(target, norm=norm) for norm in ("before", "after")]
    batch = together(target, DraftModel(draft, VOCAB_SIZE), [request(target, [5, 6], Judge(h, 0.5)) for h in heads])
    for head, rounds in zip(heads, batch, strict=True):
        assert tokens(rounds) == tokens(run(target, DraftModel(draft, VOCAB_SIZE), [5, 6], Judge(head, 0.5)))


def test_a_model_with_sliding_windows_answers_one_by_one() -> None:
    target = mistral()
    assert not can_batch(target)
    assert can_batch(llama())
    batch = together(target, DraftModel(llama(3), VOCAB_SIZE), [request(target, p) for p in PROMPTS[:3]])
    for prompt, rounds in zip(PROMPTS, batch, strict=False):
        assert tokens(rounds) == tokens(run(target, None, prompt))


@pytest.mark.slow
@pytest.mark.parametrize("windows", ["target", "draft"])
def test_rows_of_models_with_sliding_windows_get_the_drafts_they_get_alone(windows: str) -> None:
    """Every draft token is kept, so that the answers are those of the drafts."""
    models = [mistral(3), llama(0)]
    target, draft = models if windows == "target" else models[::-1]

    def requests() -> list[Request]:
        return [
            request(target, p, AcceptAll() if i % 2 else Exact(), num_draft_tokens=9, max_new_tokens=60)
            for i, p in enumerate(PROMPTS[:4])
        ]

    batch = together(target, DraftModel(draft, VOCAB_SIZE), requests())
    alone = [together(target, DraftModel(draft, VOCAB_SIZE), [each])[0] for each in requests()]
    assert [[r.draft_ids for r in rounds] for rounds in batch] == [[r.draft_ids for r in rounds] for rounds in alone]


@torch.inference_mode()
def test_padding_in_the_cache_is_squeezed_out_and_changes_nothing() -> None:
    """One row rewinds ever again while the other goes on, so that the cache fills with padding."""
    model = llama()
    ids = torch.randint(3, VOCAB_SIZE, (2, 200), generator=torch.Generator().manual_seed(0))
    lm = CachedLM(model, 2)
    lengths, widest = [0, 0], 0
    for _ in range(30):
        new = [ids[i, n : n + 6] for i, n in enumerate(lengths)]
        logits = lm.read(new, [6, 6])
        for i, n in enumerate(lengths):
            expected = model(ids[i : i + 1, : n + 6]).logits[0, -6:]
            torch.testing.assert_close(logits[i], expected, atol=1e-4, rtol=1e-4)
        lengths = [lengths[0] + 1, lengths[1] + 5]
        lm.rewind_to(lengths)
        assert lm.lengths == lengths
        widest = max(widest, lm._live.shape[1])
    assert widest < 1.5 * 150 + 40
    assert lm._live.sum(1).tolist() == lengths


@torch.inference_mode()
def test_rows_that_leave_take_their_cache_along() -> None:
    model = llama()
    lm = CachedLM(model, 3)
    lm.read([torch.tensor(p) for p in PROMPTS[:3]], [0, 0, 0])
    lm.select([0, 2])
    logits = lm.read([torch.tensor([9]), torch.tensor([8, 9])], [1, 2])
    torch.testing.assert_close(logits[0], model(torch.tensor([[*PROMPTS[0], 9]])).logits[0, -1:], atol=1e-4, rtol=1e-4)
    expected = model(torch.tensor([[*PROMPTS[2], 8, 9]])).logits[0, -2:]
    torch.testing.assert_close(logits[1], expected, atol=1e-4, rtol=1e-4)
