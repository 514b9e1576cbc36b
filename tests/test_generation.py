"""A model's generation configuration is followed as transformers' own ``generate`` follows it."""

from __future__ import annotations

import logging
from typing import Any, get_args

import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM

from judge_decoding import Exact, JudgeDecoder, JudgeDecodingError, PromptLookup, SamplingParams, custom_generate
from judge_decoding.decoding.engines import Backend
from judge_decoding.decoding.generation import Defaults
from judge_decoding.evaluation.trial import Method, compare
from judge_decoding.labelling.labels.equivalence import local_rollouts
from judge_decoding.tasks.base import Item
from judge_decoding.tasks.prompt_format import PromptFormat
from judge_decoding.tasks.prompts import Prompts
from tiny import llama, perturbed, run_uncompiled, word_tokenizer

PROMPTS = ([5, 6, 7, 8], [9], [20, 21, 20, 21, 20], [14, 15, 16])
COUNT = 30
SETTINGS: dict[str, dict[str, Any]] = {
    "repetition_penalty": {"repetition_penalty": 1.3},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "suppress_tokens": {"suppress_tokens": [7, 9, 14, 20]},
    "begin_suppress_tokens": {"begin_suppress_tokens": list(range(4, 24))},
    "bad_words_ids": {"bad_words_ids": [[7], [9], [14, 15]]},
    "min_new_tokens": {"min_new_tokens": 20},
    "min_length": {"min_length": 18},
    "forced_bos_token_id": {"forced_bos_token_id": 6},
    "forced_eos_token_id": {"forced_eos_token_id": 2},
    "sequence_bias": {"sequence_bias": [[[7], 5.0], [[8, 9], -8.0]]},
    "exponential_decay": {"exponential_decay_length_penalty": [2, 1.5]},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 2.0},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1},
    "several": {"repetition_penalty": 1.1, "suppress_tokens": [11], "min_new_tokens": 5},
    "sampling flags of greedy decoding": {"temperature": 0.3, "top_k": 5, "top_p": 0.4},
}


def configured(**settings: Any) -> LlamaForCausalLM:
    model = llama(0)
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    return model


def own(model: Any, prompt: list[int], **kwargs: Any) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **kwargs)
    return output[0, len(prompt) :].tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # generate warns of what a configuration asks for and greedy decoding ignores
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_greedy_tokens_are_those_of_generate(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = configured(**settings)
    wanted = [own(model, prompt, max_new_tokens=COUNT) for prompt in PROMPTS]
    prompts = [torch.tensor(prompt) for prompt in PROMPTS]
    run_uncompiled(monkeypatch)
    small = perturbed(llama(0))
    for draft in (None, small, PromptLookup()):
        decoder = JudgeDecoder(model, word_tokenizer(), draft, num_draft_tokens=4)
        assert [list(decoder.generate(ids, COUNT).token_ids) for ids in prompts] == wanted
    # Batches and the static back end read what all drafts are verified with in the same way.
    for backend in get_args(Backend):
        decoder = JudgeDecoder(model, word_tokenizer(), small, num_draft_tokens=4, backend=backend)
        assert [list(one.token_ids) for one in decoder.generate_batch(prompts, COUNT)] == wanted
    judged = custom_generate(perturbed(llama(0)), num_draft_tokens=4)
    assert [own(model, p, max_new_tokens=COUNT, custom_generate=judged) for p in PROMPTS] == wanted


@pytest.mark.slow
def test_these_settings_change_answers() -> None:
    plain = [own(llama(0), prompt, max_new_tokens=COUNT) for prompt in PROMPTS]
    idle = {
        name
        for name, settings in SETTINGS.items()
        if [own(configured(**settings), prompt, max_new_tokens=COUNT) for prompt in PROMPTS] == plain
    }
    assert idle <= {"sampling flags of greedy decoding"}


def test_an_empty_configuration_asks_for_nothing() -> None:
    model, plain = configured(repetition_penalty=1.3, max_new_tokens=5), llama(0)
    decoder = JudgeDecoder(model, word_tokenizer(), generation_config=GenerationConfig())
    for prompt in PROMPTS:
        wanted = own(plain, prompt, max_new_tokens=COUNT)
        assert list(decoder.generate(torch.tensor(prompt), COUNT).token_ids) == wanted


def test_arguments_come_before_the_configuration() -> None:
    model = configured(repetition_penalty=1.3, max_new_tokens=5)
    decoder = JudgeDecoder(model, word_tokenizer(), perturbed(model))
    ids = torch.tensor(PROMPTS[2])
    assert list(decoder.generate(ids, 9).token_ids) == own(model, PROMPTS[2], max_new_tokens=9)
    for penalty in (1.0, 2.0):
        found = decoder.generate(ids, 9, sampling=SamplingParams(repetition_penalty=penalty)).token_ids
        assert list(found) == own(model, PROMPTS[2], max_new_tokens=9, repetition_penalty=penalty)


@pytest.mark.parametrize(("settings", "prompt", "count"), [
    ({"max_new_tokens": 5}, [5, 6, 7, 8], 5), ({"max_length": 12}, [5, 6, 7, 8], 8),
    ({"max_length": 3}, [5, 6, 7, 8], 1),
    ({"max_new_tokens": 5, "max_length": 90}, [5, 6, 7, 8], 5), ({}, [5, 6, 7, 8], 256),
])  # fmt: skip
def test_the_token_budget_is_the_configurations(settings: dict[str, Any], prompt: list[int], count: int) -> None:
    assert Defaults(configured(**settings)).max_new_tokens(len(prompt)) == count
    if "max_new_tokens" in settings:
        decoder = JudgeDecoder(configured(**settings), word_tokenizer())
        found = decoder.generate(torch.tensor(prompt))
        assert list(found.token_ids) == own(configured(**settings), prompt)
        assert found.finish_reason == "length"


def test_sampling_is_the_configurations_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    # Of the most probable two tokens only, so that the support can be read off greedy logits.
    model = configured(do_sample=True, temperature=1.5, top_k=2)
    decoder = JudgeDecoder(model, word_tokenizer(), perturbed(model), num_draft_tokens=3)
    prompt = torch.tensor([PROMPTS[0]])
    with caplog.at_level(logging.WARNING):
        answers = [decoder.generate(prompt, 8, seed=seed).token_ids for seed in range(12)]
    assert len(set(answers)) > 1
    assert sum("temperature 1.5" in m for m in caplog.messages) == 1
    for answer in answers:
        ids = torch.cat((prompt, torch.tensor([answer])), 1)
        best = model(ids).logits[0, prompt.shape[1] - 1 : -1].topk(2).indices.tolist()
        assert all(token in two for token, two in zip(answer, best, strict=True))
    greedy = decoder.generate(prompt, 8, temperature=0.0).token_ids
    assert list(greedy) == own(llama(0), PROMPTS[0], max_new_tokens=8)


def test_a_call_can_turn_the_configurations_truncations_off() -> None:
    defaults = Defaults(configured(do_sample=True, top_p=0.1, top_k=1))
    plain = defaults.prepare(torch.tensor([[5, 6]]), SamplingParams(temperature=1.0, top_p=1.0, top_k=0), 5, (2,))
    assert plain.processor is None
    cut = defaults.prepare(torch.tensor([[5, 6]]), SamplingParams(temperature=1.0), 5, (2,))
    assert cut.processor is not None
    logits = torch.tensor([[[0.0, 2.0, 1.0]]])
    assert cut.processor(torch.tensor([[5, 6]]), logits).isfinite().sum() == 1


def test_what_remembers_is_refused() -> None:
    decoder = JudgeDecoder(configured(guidance_scale=2.0), word_tokenizer(), PromptLookup())
    with pytest.raises(JudgeDecodingError, match="guidance_scale"):
        decoder.generate(torch.tensor(PROMPTS[0]), 5)


def test_a_configuration_that_generate_refuses_is_one_sentence() -> None:
    decoder = JudgeDecoder(configured(bad_words_ids=[7]), word_tokenizer())
    with pytest.raises(JudgeDecodingError, match=r"GenerationConfig\(\)"):
        decoder.generate(torch.tensor(PROMPTS[0]), 5)


def test_the_models_configuration_stays_as_it_was() -> None:
    model = configured(repetition_penalty=1.3, stop_strings=["two"], num_beams=4)
    before = model.generation_config.to_dict()
    JudgeDecoder(model, word_tokenizer()).generate(torch.tensor(PROMPTS[0]), 5)
    assert model.generation_config.to_dict() == before


def test_what_is_measured_is_greedy_whatever_the_model_says() -> None:
    """Calibration and labels must not draw lots because a model samples by default."""
    model = configured(do_sample=True, temperature=3.0)
    decoder = JudgeDecoder(model, word_tokenizer(), perturbed(model))
    wanted = own(llama(0), PROMPTS[0], max_new_tokens=12)
    (found,) = local_rollouts(decoder)([PROMPTS[0]], [12])
    assert found[0] == wanted
    answer = decoder.generate("one two three four", 12, temperature=0.0)
    prompt_format, items = (
        PromptFormat(Prompts("text"), max_new_tokens=12),
        [Item("1", ("one two three four",), answer.text)],
    )
    methods = {str(number): Method(decoder, Exact()) for number in range(4)}
    outcomes = compare(methods, prompt_format, items, batch_size=2)
    assert [outcome.accuracy for outcome in outcomes.values()] == [1.0] * 4
