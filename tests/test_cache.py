"""The cache and the hidden states: what is taken back leaves no trace, and states belong to the right tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Lfm2Config, Lfm2ForCausalLM, PreTrainedModel

from judge_decoding import Evidence, decode
from judge_decoding.core.hidden import HiddenSource, Norm
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.models.cached_lm import CachedLM
from judge_decoding.models.hidden import HiddenStateHook
from judge_decoding.models.teacher_forcing import hidden_states, read_given
from tiny import EOS, VOCAB_SIZE, AcceptAll, final_norm, greedy, llama, mistral, perturbed, request, run, tokens


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB_SIZE, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.3,
        bos_token_id=1, eos_token_id=EOS, pad_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


def lfm2() -> Lfm2ForCausalLM:
    """Convolutions, which can be taken back, between attention layers."""
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, layer_types=["conv", "full_attention", "conv"], initializer_range=0.3,
        bos_token_id=1, eos_token_id=EOS, pad_token_id=0,
    )  # fmt: skip
    return Lfm2ForCausalLM(config).eval().requires_grad_(False)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": llama,
    "mistral, window 8": mistral,
    "gpt2": gpt2,
    "lfm2": lfm2,
}


@pytest.fixture(params=MODELS.values(), ids=list(MODELS))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    built: PreTrainedModel = request.param()
    return built


@pytest.mark.parametrize(
    ("first", "second", "back", "third"), [(5, 4, 3, 4), (1, 6, 6, 2), (20, 7, 7, 7), (6, 3, 0, 5)]
)
@torch.inference_mode()
def test_rewinding_equals_a_fresh_forward(
    model: PreTrainedModel, first: int, second: int, back: int, third: int
) -> None:
    generator = torch.Generator().manual_seed(first)
    ids = torch.randint(3, VOCAB_SIZE, (1, 40), generator=generator)
    rejected = torch.randint(3, VOCAB_SIZE, (1, second), generator=generator)
    lm = CachedLM(model)
    lm.read([ids[0, :first]], [1])
    taken = torch.cat((ids[:, first : first + second - back], rejected[:, second - back :]), dim=1)
    lm.read([taken[0]], [second])
    lm.rewind_to([first + second - back])
    end = first + second - back + third
    logits = lm.read([ids[0, first + second - back : end]], [third])[0][None]
    assert lm.lengths == [end]
    torch.testing.assert_close(logits, model(ids[:, :end]).logits[:, -third:], atol=1e-4, rtol=1e-4)


def test_what_a_window_no_longer_needs_is_dropped() -> None:
    """Also when nothing is ever taken back, as in a draft that is always accepted."""
    model = mistral(sliding_window=8)
    drafter = DraftModel(model, VOCAB_SIZE)
    run(model, drafter, [1, 5, 6], num_draft_tokens=4, max_new_tokens=60)
    drafted: Any = drafter._lm
    assert drafted._cache.layers[0].keys.shape[-2] < 8 + 2 * 4
    lm: Any = CachedLM(model)
    for end in range(1, 30):
        lm.read([torch.tensor([end])], [1])
        lm.rewind_to([end])
        assert lm.lengths == [end]
        assert lm._cache.layers[0].keys.shape[-2] < 8 + 1


@pytest.mark.parametrize("length", [1, 4])
def test_decoding_with_each_kind_of_cache_says_what_generate_says(model: PreTrainedModel, length: int) -> None:
    for prompt in ([7], [1, 5, 6, 7, 8, 9]):
        drafter = DraftModel(llama(3), VOCAB_SIZE)
        assert tokens(run(model, drafter, prompt, num_draft_tokens=length)) == greedy(model, prompt)
        drafter = DraftModel(model, VOCAB_SIZE)
        assert tokens(run(model, drafter, prompt, num_draft_tokens=length)) == greedy(model, prompt)


def test_each_kind_of_cache_can_draft(model: PreTrainedModel) -> None:
    target = llama(3)
    for prompt in ([7], [1, 5, 6, 7, 8, 9]):
        rounds = run(target, DraftModel(model, VOCAB_SIZE), prompt, num_draft_tokens=3, max_new_tokens=16)
        assert tokens(rounds) == greedy(target, prompt, 16)
        # A draft model proposes its own greedy continuation of whatever was kept.
        so_far = list(prompt)
        for event in rounds:
            assert list(event.draft_ids) == greedy(model, so_far, len(event.draft_ids) or 1)[: len(event.draft_ids)]
            so_far += event.token_ids


class Keeper(AcceptAll):
    """Keeps every token, and the evidence."""

    def __init__(self, norm: Norm) -> None:
        self.norm = norm
        self.seen: list[Evidence] = []

    def accept(self, evidence: Evidence) -> Tensor:
        self.seen.append(evidence)
        return super().accept(evidence)


def reference_states(model: PreTrainedModel, ids: list[int], norm: Norm) -> Tensor:
    """The states over the whole sequence in one fresh forward [T, H]: of the last layer, or of the normed output."""
    caught: list[Tensor] = []

    def catch(_module: object, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        caught.append(output if isinstance(output, Tensor) else output[0])

    decoder = model.get_decoder()
    layers = decoder.h if hasattr(decoder, "h") else decoder.layers
    hook = layers[-1].register_forward_hook(catch)
    output = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    hook.remove()
    return caught[0][0] if norm == "before" else output.hidden_states[-1][0]


@pytest.mark.parametrize("norm", ["before", "after"])
def test_hidden_states_are_those_at_the_draft_tokens(model: PreTrainedModel, norm: Norm) -> None:
    rule = Keeper(norm)
    prompt = [1, 5, 6]
    rounds = run(model, DraftModel(llama(3), VOCAB_SIZE), prompt, rule, num_draft_tokens=3, max_new_tokens=12)
    states = reference_states(model, [*prompt, *tokens(rounds)], norm)
    position = len(prompt)
    for event, evidence in zip(rounds, rule.seen, strict=True):
        count = len(event.draft_ids)
        assert count
        assert evidence.hidden is not None
        torch.testing.assert_close(evidence.hidden[0], states[position : position + count], atol=1e-4, rtol=1e-4)
        position += len(event.token_ids)


def test_before_and_after_the_norm_differ(model: PreTrainedModel) -> None:
    before, after = (reference_states(model, [1, 5, 6, 7], norm) for norm in ("before", "after"))
    assert not torch.allclose(before, after, atol=0.1)


def test_a_rule_that_needs_no_hidden_states_gets_none() -> None:
    rule = Keeper("before")
    rule.norm = None
    run(llama(), DraftModel(llama(3), VOCAB_SIZE), [1, 5], rule)
    assert rule.seen
    assert all(evidence.hidden is None for evidence in rule.seen)


@pytest.mark.parametrize("norm", ["before", "after"])
def test_training_sees_the_states_that_decoding_sees(model: PreTrainedModel, norm: Norm) -> None:
    """Sequences of many lengths, so that batches are padded."""
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(3, VOCAB_SIZE, (n,), generator=generator).tolist() for n in (3, 9, 1, 12, 9, 2, 7)]
    states = hidden_states(model, sequences, norm, batch_tokens=9)
    for ids, state in zip(sequences, states, strict=True):
        torch.testing.assert_close(state, reference_states(model, ids, norm), atol=1e-4, rtol=1e-4)


def test_a_tap_needs_a_forward() -> None:
    model = llama()
    with HiddenStateHook(model, HiddenSource(-1, "before")) as tap, pytest.raises(RuntimeError, match="no forward"):
        _ = tap.states


def test_no_states_are_held_between_forwards(model: PreTrainedModel) -> None:
    """Other threads may run the model then, and a hook would keep what it saw of theirs."""
    rule, norm = Keeper("after"), final_norm(model)
    assert norm is not None
    asked = request(model, [1, 5], rule, max_new_tokens=8)
    for _ in decode(model, DraftModel(perturbed(model), VOCAB_SIZE), [asked]):
        assert not norm._forward_hooks
    assert rule.seen[0].hidden is not None
    for piece in read_given(model, [[5, 6, 7], [8, 9]], [range(3), range(2)], sources=[HiddenSource()], logits=False):
        assert not norm._forward_hooks
        assert piece.states[HiddenSource()].shape == (len(piece.positions) or 3 - piece.number, 32)


@pytest.mark.parametrize("norm", ["before", "after"])
def test_a_hook_that_another_thread_closes_spoils_no_forward(model: PreTrainedModel, norm: Norm) -> None:
    hook, inner = HiddenStateHook(model, HiddenSource(-1, norm)), final_norm(model)
    assert inner is not None
    # As if it happened in another thread after this forward has looked which hooks there are.
    first = inner.register_forward_hook(lambda *_: hook.__exit__(None, None, None))
    expected = model(torch.tensor([[5, 6, 7]])).logits
    with first, hook:
        assert torch.equal(model(torch.tensor([[5, 6, 7]])).logits, expected)
        with pytest.raises(RuntimeError, match="no forward"):
            _ = hook.states
