"""How long an answer may get, where positions change their scale, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
)

from judge_decoding import JudgeDecoder, JudgeDecodingError, PromptLookup
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.labelling.labels.swaps import log_probs
from judge_decoding.models.context import context_length, rope_border
from judge_decoding.models.teacher_forcing import hidden_states, read_given
from tiny import EOS, Scripted, greedy, llama, perturbed, run, tokens, word_tokenizer

SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
PROMPT = [(i * 7) % 30 + 5 for i in range(28)]


def rotary(rope: dict[str, Any], length: int = 32) -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        **SMALL, max_position_embeddings=length, initializer_range=0.3, rope_parameters={"rope_theta": 1e4, **rope},
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )).eval().requires_grad_(False)  # fmt: skip


def phi3(trained: int = 32) -> PreTrainedModel:
    torch.manual_seed(0)
    return Phi3ForCausalLM(Phi3Config(
        **SMALL, max_position_embeddings=256, original_max_position_embeddings=trained, initializer_range=0.3,
        rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [4.0] * 4,
                         "short_factor": [1.0] * 4,
                         "original_max_position_embeddings": trained},
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )).eval().requires_grad_(False)  # fmt: skip


def forwards(model: PreTrainedModel, prompt: list[int], count: int) -> list[int]:
    """Greedy tokens of plain forward passes, each over the whole sequence: how such positions are meant."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    found = ids[len(prompt) :]
    # Older ones dropped the cache at the border and read one token after it.
    assert Version(transformers.__version__) < Version("5.23") or found == greedy(model, prompt, count)
    return found


DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}


@pytest.mark.parametrize(("rope", "length"), [
    ({"rope_type": "default"}, 32),
    ({"rope_type": "linear", "factor": 4.0}, 128),
    (DYNAMIC, 128),
    ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, 128),  # as Qwen2.5's card says
    ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16}, 32),  # the length is scaled already
    ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 8}, 32),
])  # fmt: skip
def test_context_lengths(rope: dict[str, Any], length: int) -> None:
    assert context_length(rotary(rope)) == length


def test_the_configured_length_counts_where_layers_differ() -> None:
    config = Gemma3TextConfig(**SMALL, max_position_embeddings=64, rope_parameters={
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    })  # fmt: skip
    assert context_length(Gemma3ForCausalLM(config)) == 64
    assert (
        context_length(GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=1, n_head=4, n_positions=48))) == 48
    )


@pytest.mark.parametrize("rope", [
    {"rope_type": "linear", "factor": 4.0}, DYNAMIC,
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
], ids=lambda rope: rope["rope_type"])  # fmt: skip
@pytest.mark.parametrize("prompt", [PROMPT, PROMPT + PROMPT[:12]], ids=["across", "beyond"])
def test_scaled_positions_are_those_of_generate(rope: dict[str, Any], prompt: list[int]) -> None:
    model = rotary(rope)
    wanted = greedy(model, prompt, 20)
    half_right = Scripted(lambda ids, count: (wanted[len(ids) - len(prompt) :][:2] + [3] * count)[:count])
    for drafter in (None, PromptLookup(), half_right):
        assert tokens(run(model, drafter, prompt, num_draft_tokens=6, max_new_tokens=20)) == wanted


@pytest.mark.parametrize("prompt", [PROMPT[:5], PROMPT, PROMPT + PROMPT[:12]], ids=["before", "across", "beyond"])
def test_longrope_reads_anew_where_generate_does(prompt: list[int]) -> None:
    model = phi3()
    border = rope_border(model)
    assert border is not None
    assert border.length == 32
    assert border.starts_anew
    wanted = forwards(model, prompt, 40)
    half_right = Scripted(lambda ids, count: (wanted[len(ids) - len(prompt) :][:5] + [3] * count)[:count])
    for drafter in (None, PromptLookup(), half_right):
        rounds = run(model, drafter, prompt, num_draft_tokens=9, max_new_tokens=40)
        assert tokens(rounds) == wanted
    assert sum(len(event.draft_ids) for event in rounds) > 40  # it does draft, on both sides of the border


def test_longrope_in_batches() -> None:
    model = phi3()
    prompts = [PROMPT, PROMPT[:5], PROMPT[:9]]
    decoder = JudgeDecoder(model, word_tokenizer(), perturbed(model), num_draft_tokens=5)
    for count in (12, 40):  # rows that share forwards while they stay below the border, and rows that cross it
        answers = [forwards(model, prompt, count) for prompt in prompts]
        wanted = [answer[: answer.index(EOS) + 1] if EOS in answer else answer for answer in answers]
        found = decoder.generate_batch([torch.tensor(prompt) for prompt in prompts], count)
        assert [list(one.token_ids) for one in found] == wanted


def test_models_with_a_border_are_not_compiled() -> None:
    decoder = JudgeDecoder(phi3(), word_tokenizer(), backend="static")
    assert any("change their scale" in reason for reason in decoder.compile())


def test_why_an_answer_ended() -> None:
    model = llama(0, context=32)
    decoder = JudgeDecoder(model, word_tokenizer(), perturbed(model), num_draft_tokens=4)
    wanted = greedy(model, PROMPT[:4], 24, stop=True)
    assert wanted[-1] == 2  # the end token
    whole = decoder.generate(torch.tensor(PROMPT[:4]), 24)
    assert whole.finish_reason == "stop"
    assert list(whole.token_ids) == wanted
    short = decoder.generate(torch.tensor(PROMPT[:4]), len(wanted) - 1)
    assert short.finish_reason == "length"
    assert list(short.token_ids) == wanted[:-1]
    full = decoder.generate(torch.tensor(PROMPT), 24)
    assert len(full.token_ids) <= 4
    assert full.finish_reason == ("stop" if 2 in full.token_ids else "context")
    reasons = [
        one.finish_reason for one in decoder.generate_batch([torch.tensor(PROMPT[:4]), torch.tensor(PROMPT)], 24)
    ]
    assert reasons == ["stop", full.finish_reason]
    chunks = list(decoder.stream(torch.tensor(PROMPT[:4]), len(wanted) - 1))
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    with pytest.raises(JudgeDecodingError, match="the target's context is 32"):
        decoder.generate(torch.tensor(PROMPT + PROMPT), 4)


def test_a_draft_with_a_shorter_context_does_not_end_answers() -> None:
    model, draft = llama(0), llama(0, context=24)
    wanted = greedy(model, PROMPT[:12], 40)
    for drafts in (draft, torch.compile(draft, backend="eager")):
        decoder = JudgeDecoder(model, word_tokenizer(), drafts, num_draft_tokens=5)
        decoder.tokenizer.eos_token = None
        model.generation_config.eos_token_id = None
        answer = decoder.generate(torch.tensor(PROMPT[:12]), 40)
        assert list(answer.token_ids) == wanted
        assert answer.finish_reason == "length"
        assert answer.stats.drafted > 0
        assert not answer.rounds[-1].draft_ids


def stepwise(model: PreTrainedModel, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and logits of each token where the sequence ends with it: what decoding sees."""
    states, logits = [], []
    for end in range(1, len(ids) + 1):
        output = model(torch.tensor([ids[:end]]), output_hidden_states=True, use_cache=False)
        states.append(output.hidden_states[-1][0, -1])
        logits.append(output.logits[0, -1])
    return torch.stack(states), torch.stack(logits)


def test_training_and_scoring_read_as_decoding_does() -> None:
    model = phi3()
    texts = [[*PROMPT, *PROMPT[:20]], PROMPT[:9], [*PROMPT, *PROMPT[:6]]]
    wanted = [stepwise(model, text) for text in texts]
    for found, (states, _) in zip(hidden_states(model, texts, "after"), wanted, strict=True):
        assert torch.allclose(found, states, atol=1e-4)
    given = log_probs(model, [text[:4] for text in texts], [text[4:] for text in texts])
    for text, own, (_, logits) in zip(texts, given, wanted, strict=True):
        expected = logits[3:-1].log_softmax(-1).gather(1, torch.tensor(text[4:])[:, None])[:, 0]
        assert torch.allclose(own, expected, atol=1e-4)
    # One that crosses the border is read in parts on both sides of it, and those before it share a forward.
    for batch_tokens in (7, 16, 200):
        forced = [range(4, len(text) + 1) for text in texts]
        pieces = list(read_given(model, texts, forced, sources=[HiddenSource()], batch_tokens=batch_tokens))
        for number, (states, logits) in enumerate(wanted):
            parts = [piece for piece in pieces if piece.number == number]
            assert torch.allclose(torch.cat([piece.logits for piece in parts]), logits[3:], atol=1e-4)
            assert torch.allclose(torch.cat([piece.states[HiddenSource()] for piece in parts]), states[4:], atol=1e-4)
