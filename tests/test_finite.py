"""Logits that are no numbers are said to be so, in one sentence, wherever they are read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from judge_decoding import Exact, JudgeDecoder, JudgeDecodingError, PromptLookup, custom_generate
from judge_decoding.models.teacher_forcing import read_given
from tiny import llama, perturbed, random_head, run_uncompiled, word_tokenizer

PROMPT = torch.tensor([5, 6, 7, 8])


def overflowing(value: float = torch.nan) -> LlamaForCausalLM:
    """As a model that overflows in float16: from some token on its states are no numbers."""
    model = llama(0)
    model.model.layers[-1].mlp.down_proj.weight[0, 0] = value
    return model


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("backend", ["eager", "static"])
@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_decoding_says_so(
    value: float, backend: str, judged: bool, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_uncompiled(monkeypatch)
    model = overflowing(value)
    decoder = JudgeDecoder(model, word_tokenizer(), PromptLookup(), backend=backend)  # type: ignore[arg-type]
    if judged:
        decoder.judge = random_head(llama(0))
    with pytest.raises(JudgeDecodingError, match=r"target model's logits are not finite.*bfloat16"):
        decoder.generate(PROMPT, 8, temperature=temperature, seed=1)


def test_a_draft_that_overflows_is_named() -> None:
    decoder = JudgeDecoder(llama(0), word_tokenizer(), overflowing())
    with pytest.raises(JudgeDecodingError, match="draft model's logits are not finite"):
        decoder.generate(PROMPT, 8, temperature=1.0, seed=1)


def test_greedy_drafts_of_an_overflowing_model_are_only_wrong() -> None:
    decoder = JudgeDecoder(llama(0), word_tokenizer(), overflowing())
    plain = JudgeDecoder(llama(0), word_tokenizer()).generate(PROMPT, 8)
    assert decoder.generate(PROMPT, 8).token_ids == plain.token_ids


def test_in_transformers_generate() -> None:
    model: Any = overflowing()
    with pytest.raises(JudgeDecodingError, match="not finite"):
        model.generate(PROMPT[None], custom_generate=custom_generate(perturbed(llama(0))), max_new_tokens=8)


def test_reading_given_answers_says_so() -> None:
    with pytest.raises(JudgeDecodingError, match="not finite"):
        list(read_given(overflowing(), [(5, 6, 7, 8)], [(2, 3, 4)]))


def test_forbidden_tokens_are_no_overflow() -> None:
    model = llama(0)
    model.generation_config.suppress_tokens = [7, 9]
    answer = JudgeDecoder(model, word_tokenizer(), perturbed(model)).generate(PROMPT, 8, rule=Exact())
    assert not {7, 9} & set(answer.token_ids)
