"""Given texts are read as one plain forward pass reads each alone, however they are batched and cut into parts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby, pairwise
from threading import Thread

import pytest
import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
)

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.models import teacher_forcing
from judge_decoding.models.forward import Forward, lock_of
from judge_decoding.models.teacher_forcing import hidden_states, log_probability, read_given
from judge_decoding.training.features import BASELINES, read
from test_context import DYNAMIC, phi3, rotary, stepwise
from test_feature_cache import no_few_logits, softcapped
from tiny import VOCAB_SIZE, final_norm, llama, mistral


def shared_keys() -> PreTrainedModel:
    """Its last two layers use the keys of those before, and run for those tokens only of which logits are wanted."""
    torch.manual_seed(0)
    config = Gemma4TextConfig(
        vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=256, sliding_window=6, initializer_range=0.3,
        num_kv_shared_layers=2, hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCAB_SIZE,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )  # fmt: skip
    return Gemma4ForCausalLM(config).eval().requires_grad_(False)


def recurrent() -> PreTrainedModel:
    """It cannot go on with several tokens from what it has read."""
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=VOCAB_SIZE, hidden_size=32, num_hidden_layers=2, state_size=4)
    return MambaForCausalLM(config).eval().requires_grad_(False)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": llama,
    "sliding window": mistral,
    "soft-capped": lambda: softcapped(256),
    "no few logits and no cache": lambda: no_few_logits(256),
    "shared keys": shared_keys,
    "recurrent": recurrent,
}

SEQUENCES = [
    torch.randint(3, VOCAB_SIZE, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (40, 3, 9, 1, 12)
]
WANTED = [[5, 6, 11, 30, 40], [0, 2], [9], [0, 1], range(4, 13)]


def plain(model: PreTrainedModel, ids: list[int]) -> tuple[Tensor, Tensor]:
    """Logits [T, V] and states after the last norm [T, H] of one forward pass."""
    states: list[Tensor] = []
    norm = final_norm(model)
    assert norm is not None
    hook = norm.register_forward_hook(lambda _module, _args, output: states.append(output))
    output = model(torch.tensor([ids]), use_cache=False)
    hook.remove()
    return output[0][0], states[0][0]


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that short texts have too many logits for one forward."""
    monkeypatch.setattr(teacher_forcing, "_LOGIT_ROWS", 16)


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("batch_tokens", [2, 7, 30, 500])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_read_is_what_a_plain_forward_says(name: str, batch_tokens: int, logits: bool) -> None:
    model, source, seen = MODELS[name](), HiddenSource(), []
    pieces = read_given(model, SEQUENCES, WANTED, sources=[source], logits=logits, batch_tokens=batch_tokens)
    for i, found in groupby(pieces, key=lambda piece: piece.number):
        own = list(found)
        seen.append(i)
        wanted, (said, states) = list(WANTED[i]), plain(model, SEQUENCES[i])
        expected = [at for at in wanted if at and logits]
        assert torch.cat([piece.positions for piece in own]).tolist() == expected
        torch.testing.assert_close(
            torch.cat([piece.logits for piece in own]), said[[at - 1 for at in expected]], atol=1e-4, rtol=1e-4
        )
        known = states[[at for at in wanted if at < len(SEQUENCES[i])]]
        torch.testing.assert_close(torch.cat([piece.states[source] for piece in own]), known, atol=1e-4, rtol=1e-4)
    assert sorted(seen) == list(range(len(SEQUENCES)))


@pytest.mark.parametrize("name", MODELS)
def test_few_logits_are_there_at_a_time(name: str) -> None:
    model = MODELS[name]()
    list(read_given(model, [[1, 2, 3]], [[1]], sources=[HiddenSource()]))  # the first looks at the model
    made: list[int] = []
    everywhere = [range(1, len(ids) + 1) for ids in SEQUENCES]
    with torch.no_grad():
        list(read_given(model, [[5] * 40], [range(1, 41)]))  # what the model can do is found out
        hook = model.get_output_embeddings().register_forward_pre_hook(
            lambda _module, args: made.append(args[0].shape[:2].numel())
        )
        list(read_given(model, SEQUENCES, everywhere, sources=[HiddenSource()]))
    hook.remove()
    # A model that can neither choose nor go on has to make all of them.
    assert max(made) <= (40 if name == "no few logits and no cache" else 16)


def test_without_states_the_last_token_is_not_read() -> None:
    model, read = llama(), []
    hook = model.model.embed_tokens.register_forward_pre_hook(lambda _, args: read.append(tuple(args[0].shape)))
    (piece,) = read_given(model, [[5, 6, 7, 8]], [[2, 3]])
    hook.remove()
    assert read == [(1, 3)]
    logits = plain(model, [5, 6, 7])[0].log_softmax(-1)
    found = log_probability(piece.logits, torch.tensor([7, 8]))
    torch.testing.assert_close(found, torch.stack([logits[1, 7], logits[2, 8]]), atol=1e-5, rtol=1e-5)


def test_the_model_is_free_while_a_piece_is_handed_out() -> None:
    model, free = llama().train(), []

    def look() -> None:
        free.append(lock_of(model).acquire(blocking=False))
        if free[-1]:
            lock_of(model).release()

    for piece in read_given(model, SEQUENCES, WANTED, sources=[HiddenSource()], batch_tokens=7):
        other = Thread(target=look)
        other.start()
        other.join()
        assert model.training
        # Who uses the model now changes nothing of what was read.
        before = piece.states[HiddenSource()].clone()
        model(torch.tensor([[9, 9, 9]]))
        assert torch.equal(piece.states[HiddenSource()], before)
    assert len(free) > len(SEQUENCES)
    assert all(free)


@pytest.mark.parametrize("build", [phi3, lambda: rotary(DYNAMIC)], ids=["longrope", "dynamic"])
def test_what_was_read_before_changes_no_positions(build: Callable[[], PreTrainedModel]) -> None:
    """Dynamically scaled positions keep the scale of the longest sequence that a model has read."""
    model, ids = build(), [(i * 7) % 30 + 5 for i in range(32)]
    wanted = stepwise(build(), ids)[0]
    model(torch.tensor([ids + ids]), use_cache=False)
    assert torch.allclose(hidden_states(model, [ids], "after")[0], wanted, atol=1e-4)


@pytest.mark.parametrize("prompt", [9, 32, 37])
def test_beyond_a_border_it_is_read_as_in_decoding(prompt: int) -> None:
    """Dynamic scaling has another scale for every length, and cached keys keep theirs."""
    ids = [(i * 7) % 30 + 5 for i in range(44)]
    model, cache = rotary(DYNAMIC), DynamicCache()
    name = str(Forward(model).cache_name)
    ends = [prompt, *range(prompt + 1, len(ids) + 1)]
    wanted = [
        model(torch.tensor([ids[begin:end]]), **{name: cache}, position_ids=torch.arange(begin, end)[None]).logits
        for begin, end in pairwise([0, *ends])
    ]
    pieces = read_given(rotary(DYNAMIC), [[5, 6], ids, ids[:30]], [[], range(prompt, len(ids) + 1), [4]])
    found = torch.cat([piece.logits for piece in pieces if piece.number == 1])
    assert torch.allclose(found, torch.stack([logits[0, -1] for logits in wanted]), atol=1e-4)


def test_nothing_is_said_of_a_first_token() -> None:
    ((number, columns),) = read(llama(), [[5]], [[0]], BASELINES)
    assert number == 0
    assert [columns[name].tolist() for name in BASELINES] == [[0], [0]]
