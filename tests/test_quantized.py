"""Quantised targets and drafts: what can be exact is exact, what cannot is said to be inexact."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from judge_decoding import Case, JudgeDecoder, JudgeHead, train_head
from judge_decoding.models import abilities as module
from judge_decoding.models.abilities import abilities, is_quantized
from tiny import WORDS, greedy, llama, perturbed, word_tokenizer

PROMPTS = ([5, 6, 7, 8], [9], [20, 21, 20, 21, 20])
CASES = [
    Case(question=f"one {word}", answer=" two three", errors=((0, 4),) if i % 2 else ()) for i, word in enumerate(WORDS)
]


def weight_only() -> LlamaForCausalLM:
    """Weights of 8 bits, activations as they are."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = llama(0)
    quantize_(model, Int8WeightOnlyConfig())
    return model


def dynamic() -> LlamaForCausalLM:
    """Activations of 8 bits, too, with a scale for all tokens of a forward pass together."""
    quantized: LlamaForCausalLM = torch.ao.quantization.quantize_dynamic(llama(0), {nn.Linear}, dtype=torch.qint8)
    return quantized


@pytest.mark.filterwarnings("ignore")
def test_weights_of_8_bits_are_exact() -> None:
    model, tokenizer = weight_only(), word_tokenizer()
    assert is_quantized(model)
    assert not abilities(model).inexact
    wanted = [greedy(model, prompt, 12, stop=True) for prompt in PROMPTS]
    assert wanted != [greedy(llama(0), prompt, 12, stop=True) for prompt in PROMPTS]
    prompts = [torch.tensor(prompt) for prompt in PROMPTS]
    for draft in (None, perturbed(llama(0)), model):
        decoder = JudgeDecoder(model, tokenizer, draft, num_draft_tokens=4)
        assert [list(decoder.generate(ids, 12).token_ids) for ids in prompts] == wanted
        assert [list(one.token_ids) for one in decoder.generate_batch(prompts, 12)] == wanted


@pytest.mark.filterwarnings("ignore")
def test_activations_of_8_bits_are_inexact(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KNOWN", {})
    model, tokenizer = dynamic(), word_tokenizer()
    with caplog.at_level(logging.WARNING):
        decoder = JudgeDecoder(model, tokenizer, llama(0))
        answers = [decoder.generate(torch.tensor(prompt), 12) for prompt in PROMPTS]
    assert all(answer.token_ids for answer in answers)
    assert sum("depend on the tokens that are read with it" in message for message in caplog.messages) == 1
    alone = JudgeDecoder(model, tokenizer)
    for prompt in PROMPTS:
        assert list(alone.generate(torch.tensor(prompt), 12).token_ids) == greedy(model, prompt, 12, stop=True)
    as_draft = JudgeDecoder(llama(0), tokenizer, model)
    for prompt in PROMPTS:
        assert list(as_draft.generate(torch.tensor(prompt), 12).token_ids) == greedy(llama(0), prompt, 12, stop=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [weight_only, dynamic])
def test_heads_train_on_them(make: object) -> None:
    model = make()  # type: ignore[operator]
    head = train_head(model, word_tokenizer(), CASES)
    assert isinstance(head, JudgeHead)
    answer = JudgeDecoder(model, word_tokenizer(), llama(0), head).generate(torch.tensor(PROMPTS[0]), 8, threshold=0.0)
    assert answer.stats.accepted_per_round > 0
