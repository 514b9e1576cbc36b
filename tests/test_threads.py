"""A decoder and its models shared by threads: each answer is what its prompt gets when nothing else runs.

The compiled back end is tested the same way in test_static.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import Any, Literal

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from judge_decoding import Exact, JudgeDecoder, custom_generate
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.lengths import CostOptimal
from judge_decoding.models.abilities import abilities
from judge_decoding.models.anatomy import anatomy
from judge_decoding.models.hidden import HiddenStateHook
from tiny import EOS, greedy, llama, perturbed, random_head, run_uncompiled, word_tokenizer

THREADS = 8
PROMPTS = [torch.tensor([5 + i % 7, 9 + i % 11, 6 + i % 5, *range(4, 4 + i % 9)]) for i in range(18)]


def in_threads(answer: Callable[[torch.Tensor], list[int]]) -> list[list[int]]:
    """Answers to all prompts from threads that begin together."""
    together = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS, initializer=together.wait) as pool:
        return list(pool.map(answer, PROMPTS))


def judged(model: PreTrainedModel, backend: Literal["eager", "static"] = "eager", **judge: Any) -> JudgeDecoder:
    """A decoder whose judge rescues some tokens and refuses others."""
    head = random_head(model, scale=3.0, **judge)
    return JudgeDecoder(
        model, word_tokenizer(), perturbed(model, 0.05), head, num_draft_tokens=5, backend=backend
    )  # fmt: skip


def expected(decoder: JudgeDecoder, budget: int = 16) -> list[list[int]]:
    """Answers one after the other, of which many are not the target's alone, or the tests would show nothing."""
    found = [list(decoder.generate(prompt, budget).token_ids) for prompt in PROMPTS]
    plain = [list(decoder.generate(prompt, budget, rule=Exact()).token_ids) for prompt in PROMPTS]
    assert sum(a != b for a, b in zip(found, plain, strict=True)) > len(PROMPTS) / 4
    return found


@pytest.mark.slow
@pytest.mark.parametrize("judge", [{}, {"norm": "before", "layer": -2}], ids=str)
def test_eager_answers_from_eight_threads(judge: dict[str, Any]) -> None:
    decoder = judged(llama(3), **judge)
    right = expected(decoder)
    for _ in range(2):
        assert in_threads(lambda prompt: list(decoder.generate(prompt, 16).token_ids)) == right


@pytest.mark.slow
def test_first_use_of_a_model_by_eight_threads() -> None:
    """Looking for a model's parts and trying what it can do happens while other threads already decode."""
    right = expected(judged(llama(3)))
    model = llama(3)
    # A configuration of its own, so that nothing is known of it.
    model.config.initializer_range = 0.31
    head, draft = random_head(llama(3), scale=3.0), perturbed(model, 0.05)

    def answer(prompt: torch.Tensor) -> list[int]:
        decoder = JudgeDecoder(model, word_tokenizer(), draft, head, num_draft_tokens=5)
        return list(decoder.generate(prompt, 16).token_ids)

    assert in_threads(answer) == right
    assert abilities(model).cannot_rewind == ""
    assert anatomy(model).norm == "model.norm"


@pytest.mark.slow
def test_streams_that_take_turns() -> None:
    decoder = judged(llama(3))
    right = expected(decoder)
    streams = [decoder.stream(prompt, 16) for prompt in PROMPTS[:6]]
    found: list[list[int]] = [[] for _ in streams]
    for chunks in zip_longest(*streams):
        for number, chunk in enumerate(chunks):
            found[number] += chunk.round.token_ids if chunk else ()
    assert found == right[:6]


@pytest.mark.slow
def test_batches_whose_draft_lengths_learn_from_each_other() -> None:
    """Lengths depend on times; without a judge the tokens do not depend on the lengths."""
    model = llama(3)
    decoder = JudgeDecoder(model, word_tokenizer(), perturbed(model, 0.05))

    def answer(number: int) -> list[list[int]]:
        own = PROMPTS[number * 3 : number * 3 + 3]
        answers = decoder.generate_batch(own, 24, batch_size=2, draft_length=CostOptimal)
        return [list(each.token_ids) for each in answers]

    with ThreadPoolExecutor(THREADS) as pool:
        found = [each for some in pool.map(answer, range(len(PROMPTS) // 3)) for each in some]
    assert found == [greedy(model, prompt.tolist(), 24, stop=True) for prompt in PROMPTS]


@pytest.mark.slow
def test_custom_generate_from_eight_threads() -> None:
    model: Any = llama(3)
    head, draft = random_head(model, scale=3.0), perturbed(model, 0.05)
    judged = custom_generate(draft, head, num_draft_tokens=5)

    def answer(prompt: torch.Tensor) -> list[int]:
        ids = model.generate(prompt[None], custom_generate=judged, do_sample=False, max_new_tokens=12)
        return ids[0, len(prompt) :].tolist()

    right = [answer(prompt) for prompt in PROMPTS]
    assert in_threads(answer) == right


def test_positions_that_depend_on_what_was_read_before() -> None:
    """Dynamic rope scaling keeps the longest sequence in the model, which another thread's must not see."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=16, initializer_range=0.3, eos_token_id=EOS, pad_token_id=0,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config).eval().requires_grad_(False)
    decoder = JudgeDecoder(model, word_tokenizer(), model)
    right = [model.generate(p[None], do_sample=False, max_new_tokens=16)[0, len(p) :].tolist() for p in PROMPTS]
    assert in_threads(lambda prompt: list(decoder.generate(prompt, 16).token_ids)) == right


def test_a_tap_sees_its_own_thread_only() -> None:
    model = llama(0)
    ids = torch.tensor([[5, 6, 7]])
    with HiddenStateHook(model, HiddenSource(-1, "after")) as tap:
        model(ids)
        own = tap.states
        other = threading.Thread(target=lambda: model(torch.tensor([[8, 9]])))
        other.start()
        other.join()
        assert tap.states is own


def test_a_copy_of_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    run_uncompiled(monkeypatch)
    backends: tuple[Literal["eager", "static"], ...] = ("eager", "static")
    for backend in backends:
        decoder = judged(llama(3), backend)
        answer = decoder.generate(PROMPTS[1], 24).token_ids
        other = copy.deepcopy(decoder)
        assert other.target is not decoder.target
        assert other.generate(PROMPTS[1], 24).token_ids == answer
        assert copy.copy(decoder).generate(PROMPTS[1], 24).token_ids == answer
