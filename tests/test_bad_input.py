"""What a user can get wrong at the library level is answered by one clear sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RwkvConfig,
    RwkvForCausalLM,
)

from judge_decoding import Exact, JudgeDecoder, JudgeDecodingError, PromptLookup, SamplingParams, write_cases
from judge_decoding.decoding.drafters.base import Drafter
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.loading.models import check_same_vocabulary, load_model, load_tokenizer
from tiny import EOS, VOCAB_SIZE, WORDS, Scripted, greedy, llama, random_head, run, tokens, word_tokenizer


@pytest.fixture(scope="module")
def decoder(target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> JudgeDecoder:
    return JudgeDecoder(target, tokenizer, PromptLookup(), random_head(target))


def says(phrase: str, call: Callable[[], Any]) -> None:
    with pytest.raises(JudgeDecodingError, match=phrase) as refusal:
        call()
    message = str(refusal.value)
    assert "\n" not in message
    assert message.endswith(".")


# Prompts


@pytest.mark.parametrize("prompt", ["", "  \n", torch.empty(0, dtype=torch.long), torch.empty(1, 0), []], ids=str)
def test_an_empty_prompt(decoder: JudgeDecoder, prompt: Any) -> None:
    says("prompt is empty", lambda: decoder.generate(prompt, 4))
    says("prompt is empty", lambda: next(decoder.stream(prompt, 4)))


def test_several_prompts_at_once(decoder: JudgeDecoder) -> None:
    says("one prompt at a time", lambda: decoder.generate(torch.tensor([[4, 5], [6, 7]]), 4))
    says("one prompt at a time", lambda: decoder.generate(["one", "two"], 4))  # type: ignore[list-item]
    says("one prompt at a time", lambda: decoder.generate([4, 5], 4))  # type: ignore[list-item]


@pytest.mark.parametrize("ids", [[VOCAB_SIZE], [4, -1]])
def test_token_ids_the_target_does_not_know(decoder: JudgeDecoder, ids: list[int]) -> None:
    says("target's ids are 0 to 39", lambda: decoder.generate(torch.tensor(ids), 4))


def test_a_prompt_over_the_context_length(decoder: JudgeDecoder) -> None:
    for length in (256, 300):
        says("target's context is 256", partial(decoder.generate, torch.full((length,), 5), 4))
    assert len(decoder.generate(torch.full((255,), 5), 4, rule=Exact()).token_ids) == 1


def test_a_prompt_over_the_drafts_context_length(decoder: JudgeDecoder) -> None:
    pair = JudgeDecoder(decoder.target, decoder.tokenizer, llama(0, context=16))
    prompt = torch.full((16,), 5)
    answer = pair.generate(prompt, 4)
    assert answer.token_ids == decoder.alone().generate(prompt, 4).token_ids
    assert not answer.stats.drafted


def test_chat_without_a_template(target: LlamaForCausalLM) -> None:
    plain = JudgeDecoder(target, word_tokenizer(chat=False))
    says("no chat template", lambda: plain.generate([{"role": "user", "content": "one"}], 4))


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('only users') }}",
        "{% for m in messages %}{{ m['content'] + m['nothing'] }}{% endfor %}",
        "{% for m in messages %}{{ m.content + 5 }}{% endfor %}",
    ],
)
def test_messages_the_template_refuses(target: LlamaForCausalLM, template: str) -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    strict = JudgeDecoder(target, tokenizer)
    says("chat template refuses", lambda: strict.generate([{"role": "cat", "content": "one"}], 4))


# Numbers


@pytest.mark.parametrize("count", [0, -1])
def test_counts_below_one(decoder: JudgeDecoder, count: int) -> None:
    says("num_draft_tokens is", lambda: decoder.generate("one", 4, num_draft_tokens=count))
    says("num_draft_tokens is", lambda: JudgeDecoder(decoder.target, decoder.tokenizer, num_draft_tokens=count))
    says("max_new_tokens is", lambda: decoder.generate("one", count))
    says("max_new_tokens is", lambda: next(decoder.stream("one", count)))


@pytest.mark.parametrize("threshold", [-0.1, 1.01, math.nan])
def test_a_threshold_out_of_range(decoder: JudgeDecoder, threshold: float) -> None:
    says("between 0", lambda: decoder.generate("one", 4, threshold=threshold))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0), ("temperature", math.nan), ("top_p", 0.0), ("top_p", 1.1), ("top_k", -1),
        ("min_p", -0.1), ("min_p", 1.1), ("repetition_penalty", 0.0), ("repetition_penalty", math.nan),
    ],
)  # fmt: skip
def test_sampling_out_of_range(name: str, value: float) -> None:
    says(f"^{name} is", lambda: SamplingParams(**{name: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0.0, 0.7, 100.0])
def test_sampling_at_the_edge_of_its_range(decoder: JudgeDecoder, value: float) -> None:
    assert decoder.generate("one", 4, temperature=value, seed=0).token_ids


# Pairs


def test_different_vocabularies(folders: dict[str, Path], tmp_path: Path, target: LlamaForCausalLM) -> None:
    other = word_tokenizer([*WORDS[1:], "new"])
    target.save_pretrained(tmp_path)
    other.save_pretrained(tmp_path)
    says("different vocabularies", lambda: JudgeDecoder.from_pretrained(folders["target"], draft=tmp_path))
    says("20 of the target's", lambda: check_same_vocabulary(word_tokenizer(), other))
    says("24 and 25 tokens", lambda: check_same_vocabulary(word_tokenizer(), word_tokenizer([*WORDS, "new"])))
    check_same_vocabulary(word_tokenizer(), word_tokenizer(chat=False))


def test_a_head_for_another_model(tokenizer: PreTrainedTokenizerFast, folders: dict[str, Path], tmp_path: Path) -> None:
    other = llama(4)
    says("other weights", lambda: JudgeDecoder(llama(0), tokenizer, judge=random_head(other)))
    random_head(other).save_pretrained(tmp_path)
    says("other weights", lambda: JudgeDecoder.from_pretrained(folders["target"], judge=tmp_path))


# Folders


@pytest.mark.parametrize("name", ["no/such", "/no/such/place"])
def test_a_model_that_is_not_there(name: str) -> None:
    says("Cannot load the model", lambda: load_model(name))
    says("Cannot load the tokenizer", lambda: load_tokenizer(name))
    says("Cannot load the tokenizer", lambda: JudgeDecoder.from_pretrained(name))


def test_an_unwritable_output(tmp_path: Path, target: LlamaForCausalLM) -> None:
    (tmp_path / "file").write_text("")
    says("file", lambda: write_cases(tmp_path / "file" / "cases.jsonl", []))
    says("file", lambda: random_head(target).save_pretrained(tmp_path / "file" / "head"))


# Models whose cache cannot take tokens back

COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.3,
    "bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": 0,
}  # fmt: skip


def mamba() -> PreTrainedModel:
    return MambaForCausalLM(MambaConfig(state_size=8, **COMMON))


def frozen(build: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    torch.manual_seed(0)
    return build().eval().requires_grad_(False)


@pytest.mark.parametrize("prompt", [[7], [1, 5, 6, 5, 6]], ids=["one token", "several"])
@pytest.mark.parametrize("build", [mamba])
def test_a_recurrent_model_decodes_alone_but_takes_no_draft(
    build: Callable[[], PreTrainedModel], prompt: list[int]
) -> None:
    model = frozen(build)
    assert tokens(run(model, None, prompt, max_new_tokens=8)) == greedy(model, prompt, 8)
    drafters: list[Drafter] = [DraftModel(llama(3), VOCAB_SIZE), PromptLookup(), Scripted(lambda _ids, _count: [5])]
    for drafter in drafters:
        says("cannot drop rejected tokens", partial(run, model, drafter, prompt))


@pytest.mark.parametrize("prompt", [[7], [1, 5, 6, 5, 6]], ids=["one token", "several"])
@pytest.mark.parametrize("build", [mamba])
def test_a_recurrent_model_does_not_draft(build: Callable[[], PreTrainedModel], prompt: list[int]) -> None:
    says("cannot drop rejected tokens", lambda: run(llama(0), DraftModel(frozen(build), VOCAB_SIZE), prompt))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (
            lambda: RwkvForCausalLM(RwkvConfig(vocab_size=VOCAB_SIZE, hidden_size=32, num_hidden_layers=2)),
            "does not continue from what it has read",
        ),
        (
            lambda: OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=VOCAB_SIZE, n_embd=32, n_layer=2, n_head=4)),
            "takes no KV cache",
        ),
    ],
    ids=["rwkv", "gpt1"],
)
def test_a_model_that_does_not_use_the_cache(build: Callable[[], PreTrainedModel], reason: str) -> None:
    """Fed one token at a time it would forget all others, and say nonsense."""
    model = frozen(build)
    says(reason, lambda: run(model, None, [7, 8], max_new_tokens=4))
    says(reason, lambda: run(llama(0), DraftModel(model, VOCAB_SIZE), [7, 8]))
