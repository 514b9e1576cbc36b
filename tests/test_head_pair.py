"""A judge that reads the draft's hidden states beside the target's: trained, saved, decoded with, and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel

from judge_decoding import (
    AnyOf,
    Case,
    Evidence,
    Judge,
    JudgeDecodingError,
    JudgeHead,
    PromptLookup,
    TopK,
    TrainingConfig,
    train_head,
)
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.judge.target import target_info
from test_training import BAD, GOOD, word_cases
from tiny import SPECIALS, VOCAB_SIZE, WORDS, bigram, llama, perturbed, random_head, run, word_tokenizer

SIZE = len(SPECIALS) + len(WORDS)


@pytest.fixture(scope="module")
def small() -> LlamaForCausalLM:
    """A draft of another hidden size than the target's 32."""
    return llama(7, hidden_size=16)


@pytest.fixture
def pair_head(target: LlamaForCausalLM, small: LlamaForCausalLM) -> JudgeHead:
    return random_head(target, draft=target_info(small))


def test_the_features_are_the_drafts_and_then_the_targets(pair_head: JudgeHead) -> None:
    assert pair_head.config.input_size == pair_head.linear.in_features == 16 + 32
    hidden, draft_hidden = torch.randn(2, 3, 32), torch.randn(2, 3, 16)
    expected = torch.sigmoid(torch.cat((draft_hidden, hidden), -1) @ pair_head.linear.weight[0] + pair_head.linear.bias)
    found = pair_head.probability(hidden.bfloat16(), draft_hidden)
    assert found.dtype == torch.float32
    assert found.shape == (2, 3)
    assert torch.allclose(pair_head.probability(hidden, draft_hidden), expected)


def test_it_comes_back_from_its_folder(
    pair_head: JudgeHead, target: LlamaForCausalLM, small: LlamaForCausalLM, tmp_path: Path
) -> None:
    pair_head.save_pretrained(tmp_path)
    back = JudgeHead.from_pretrained(tmp_path, target, small)
    assert back.config == pair_head.config
    assert torch.equal(back.linear.weight, pair_head.linear.weight)
    card = (tmp_path / "README.md").read_text()
    assert "49 numbers" in card
    assert "its draft, `LlamaForCausalLM`" in card


def test_a_head_on_the_target_alone_has_no_draft(head: JudgeHead, tmp_path: Path, small: LlamaForCausalLM) -> None:
    head.save_pretrained(tmp_path)
    assert JudgeHead.from_pretrained(tmp_path).config.draft is None
    assert not Judge(head).needs_draft_hidden
    head.check_fits(llama(0), small)  # any draft will do


@pytest.mark.parametrize(
    ("build", "phrase"),
    [
        (lambda: llama(7, hidden_size=32), r"hidden size 16\), but the draft is .* \(hidden size 32\); give the draft"),
        (lambda: llama(7, hidden_size=16, layers=1), r"number of layers 2\), but the draft is"),
        (lambda: llama(8, hidden_size=16), "the draft a model without a name has the same shape but other weights"),
    ],
)
def test_another_draft_is_refused(
    pair_head: JudgeHead, target: LlamaForCausalLM, build: object, phrase: str, tmp_path: Path
) -> None:
    other: PreTrainedModel = build()  # type: ignore[operator]
    pair_head.check_fits(target)
    with pytest.raises(JudgeDecodingError, match=phrase):
        pair_head.check_fits(target, other)
    pair_head.save_pretrained(tmp_path)
    with pytest.raises(JudgeDecodingError, match=phrase):
        JudgeHead.from_pretrained(tmp_path, target, other)


def test_weights_of_the_target_alone_are_refused(pair_head: JudgeHead, head: JudgeHead, tmp_path: Path) -> None:
    pair_head.save_pretrained(tmp_path / "pair")
    head.save_pretrained(tmp_path / "target")
    (tmp_path / "target" / "model.safetensors").replace(tmp_path / "pair" / "model.safetensors")
    with pytest.raises(JudgeDecodingError, match="does not hold 48 weights and a bias"):
        JudgeHead.from_pretrained(tmp_path / "pair")


def test_it_sees_in_decoding_what_it_saw_in_training(target: LlamaForCausalLM) -> None:
    """The scores in the loop are those of the models' states over the whole text, read at once."""
    draft = perturbed(target)
    head = random_head(target, draft=target_info(draft), norm="after")
    prompt = [1, 7, 9]
    for event in run(target, DraftModel(draft, VOCAB_SIZE), prompt, Judge(head, 0.5), max_new_tokens=30):
        ids = torch.tensor([[*prompt, *event.draft_ids]])
        states = [model.model(ids).last_hidden_state[0, len(prompt) :] for model in (target, draft)]
        assert event.scores or not event.draft_ids
        if event.draft_ids:
            assert event.scores == pytest.approx(head.probability(*states).tolist(), abs=1e-4)
        prompt += event.token_ids


def test_a_drafter_without_states_is_refused(pair_head: JudgeHead, target: LlamaForCausalLM) -> None:
    with pytest.raises(
        JudgeDecodingError, match="also reads the draft model's hidden states, and this drafter has none"
    ):
        run(target, PromptLookup(1), [5, 6, 5], Judge(pair_head, 0.5))


def test_states_of_another_size_are_refused(pair_head: JudgeHead) -> None:
    seen = Evidence(
        torch.tensor([[1]]), torch.zeros(1, 2, 4), hidden=torch.zeros(1, 1, 32), draft_hidden=torch.zeros(1, 1, 32)
    )
    with pytest.raises(JudgeDecodingError, match=r"hidden size 16\), but the draft is another \(hidden size 32\)"):
        Judge(pair_head, 0.5).accept(seen)


def test_joined_rules_ask_for_the_drafts_states(pair_head: JudgeHead) -> None:
    rule = TopK(2) | Judge(pair_head, 0.5)
    assert isinstance(rule, AnyOf)
    assert rule.needs_draft_hidden
    assert rule.norm == pair_head.config.norm


def features(model: PreTrainedModel, token: int) -> Tensor:
    return torch.eye(SIZE, model.config.hidden_size)[token]


def test_it_learns_what_only_the_draft_shows() -> None:
    """The target's states are all alike; the draft's tell the words apart."""
    table = torch.zeros(SIZE, SIZE)
    table[:, 4] = 3.0
    blind, draft = bigram(table), bigram(table)
    blind.model.embed_tokens.weight.copy_(torch.ones_like(blind.model.embed_tokens.weight))
    config, told = TrainingConfig(norm="before", after_error="correct"), []
    alone = train_head(blind, word_tokenizer(), word_cases(), config)
    head = train_head(
        blind, word_tokenizer(), word_cases(), config, draft=draft, progress=lambda *now: told.append(now)
    )
    assert ("reading the answers", 2 * len(word_cases()), 2 * len(word_cases())) in told
    assert alone.config.calibration["auc"] == pytest.approx(0.5)
    assert head.config.calibration["auc"] == 1.0
    assert head.config.draft == target_info(draft, HiddenSource(-1, "before"))
    same = torch.ones(blind.config.hidden_size)
    bad, *others = (
        float(head.probability(same, features(draft, token)))
        for token in (BAD, *(i for i in range(4, SIZE) if i not in (BAD, GOOD)))
    )
    assert bad <= head.config.threshold < min(others)


def test_training_needs_a_draft_that_can_read_the_cases() -> None:
    target, tokenizer = llama(0), word_tokenizer()
    with pytest.raises(
        JudgeDecodingError, match="the draft's ids are 0 to 9; use the target's own tokenizer, and a draft"
    ):
        train_head(target, tokenizer, word_cases(), draft=llama(0, vocab_size=10))
    long = [Case(question="one ", answer="two " * 20)]
    with pytest.raises(JudgeDecodingError, match="the draft's context is 8; shorten or remove it"):
        train_head(target, tokenizer, long, draft=llama(0, context=8))
