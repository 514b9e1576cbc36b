"""Quantised targets and drafts: what can be exact is exact, what cannot is said to be inexact."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, PerGroup, quantize_
from transformers import LlamaForCausalLM

from judge_decoding import Case, JudgeDecoder, JudgeHead, PromptLookup, decode, train_head
from judge_decoding.core.hidden import LAST
from judge_decoding.decoding.backends.static import lm
from judge_decoding.decoding.backends.static.compiling import compile_target
from judge_decoding.decoding.backends.static.graphs import FewTokens
from judge_decoding.decoding.backends.static.quantized import Int8Linear, bytes_of, words_of
from judge_decoding.decoding.backends.static.requirements import check_compiles
from judge_decoding.decoding.backends.static.target import StaticTarget
from judge_decoding.errors import CannotCompileError
from judge_decoding.models import abilities as module
from judge_decoding.models.abilities import abilities, is_quantized
from tiny import WORDS, greedy, llama, perturbed, random_head, request, word_tokenizer

PROMPTS = ([5, 6, 7, 8], [9], [20, 21, 20, 21, 20])
CASES = [
    Case(question=f"one {word}", answer=" two three", errors=((0, 4),) if i % 2 else ()) for i, word in enumerate(WORDS)
]


def weight_only(layers: int = 2) -> LlamaForCausalLM:
    """Weights of 8 bits, activations as they are."""
    model = llama(0, layers=layers)
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
def test_weights_of_8_bits_in_the_static_back_end(uncompiled: None) -> None:
    model = weight_only()
    head = random_head(model, norm="after")
    decoder = JudgeDecoder(model, word_tokenizer(), perturbed(llama(0)), head, backend="static", num_draft_tokens=4)
    eager = JudgeDecoder(model, word_tokenizer(), perturbed(llama(0)), head, num_draft_tokens=4)
    prompts = [torch.tensor(prompt) for prompt in PROMPTS]
    wanted = [greedy(model, prompt, 12, stop=True) for prompt in PROMPTS]
    assert [list(one.token_ids) for one in decoder.generate_batch(prompts, 12, threshold=1.0)] == wanted
    judged = [decoder.generate_batch(prompts, 12), eager.generate_batch(prompts, 12)]
    assert [one.token_ids for one in judged[0]] == [one.token_ids for one in judged[1]]
    assert not decoder.fallbacks


def test_four_integers_in_one_number() -> None:
    weight = torch.arange(-128, 128, dtype=torch.int8).view(16, 16)
    words = words_of(weight)
    assert words is not None
    assert words.data_ptr() == weight.data_ptr()
    assert torch.stack(list(bytes_of(words)), -1).flatten().tolist() == list(range(-128, 128))


@pytest.mark.parametrize("size", [8, 6])  # that of 6 does not divide into words
@pytest.mark.parametrize("scales", [10, 1])
def test_few_tokens_times_integers(size: int, scales: int) -> None:
    torch.manual_seed(0)
    weight, scale, bias = torch.randint(-128, 128, (10, size), dtype=torch.int8), torch.rand(scales), torch.rand(10)
    layer, x = Int8Linear(weight, scale, bias), torch.randn(2, 3, size)
    with FewTokens():
        found = layer(x)
    wanted = (x.double() @ weight.double().T) * scale.double() + bias.double()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(layer(x).double(), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_code_reads_the_8_bits_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are the model's own integers; the model is as it was before."""
    model = weight_only(layers=1)
    wanted = [greedy(model, prompt, 12) for prompt in PROMPTS]
    graph = compile_target(model, (LAST,), lambda _: None, tmp_path, few=True)
    layer: Any = model.model.layers[0].mlp.up_proj
    assert type(layer) is nn.Linear
    shared = {values.data_ptr(): values.dtype for values in graph._weights.values()}
    weight: Any = layer.weight
    assert shared[weight.qdata.data_ptr()] == torch.float32  # four integers in one number: no other copy of them
    assert not any(values.dtype == torch.int8 for values in graph._weights.values())
    monkeypatch.setattr(lm, "compile_target", lambda *_, **__: graph)
    asked = [request(model, prompt, num_draft_tokens=3, max_new_tokens=12) for prompt in PROMPTS]
    found: list[list[int]] = [[] for _ in PROMPTS]
    for row, event in decode(StaticTarget(model), PromptLookup(), asked):
        found[row] += event.token_ids
    assert found == wanted


def grouped() -> LlamaForCausalLM:
    """One scale for 16 weights."""
    model = llama(0)
    quantize_(model, Int8WeightOnlyConfig(granularity=PerGroup(16)))
    return model


def both_of_8_bits() -> LlamaForCausalLM:
    """Activations of 8 bits, with a scale for each token."""
    model = llama(0)
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (grouped, "a scale for each group"),
        (both_of_8_bits, "activations are quantised"),
        (dynamic, "its weights are not torchao's"),
    ],
)
def test_what_is_quantised_otherwise_runs_eager_with_a_reason(make: Callable[[], LlamaForCausalLM], why: str) -> None:
    with pytest.raises(CannotCompileError, match=f"does not compile \\(.*{why}"):
        check_compiles(make())


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
def test_abilities_are_of_the_quantisation_not_of_the_class() -> None:
    """All have one configuration, as they were quantised after loading."""
    makes = (weight_only, both_of_8_bits, dynamic, weight_only)
    assert [bool(abilities(make()).inexact) for make in makes] == [False, True, True, False]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [weight_only, dynamic])
def test_heads_train_on_them(make: object) -> None:
    model = make()  # type: ignore[operator]
    head = train_head(model, word_tokenizer(), CASES)
    assert isinstance(head, JudgeHead)
    answer = JudgeDecoder(model, word_tokenizer(), llama(0), head).generate(torch.tensor(PROMPTS[0]), 8, threshold=0.0)
    assert answer.stats.accepted_per_round > 0
