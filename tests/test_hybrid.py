"""Models with recurrent layers: what a rejected draft leaves in their states is undone, and no forward is added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten
from transformers import (
    BambaConfig,
    BambaForCausalLM,
    DynamicCache,
    FalconH1Config,
    FalconH1ForCausalLM,
    GraniteMoeHybridConfig,
    GraniteMoeHybridForCausalLM,
    JambaConfig,
    JambaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    NemotronHConfig,
    NemotronHForCausalLM,
    PreTrainedModel,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from judge_decoding import Evidence, Judge, JudgeDecodingError, PromptLookup, Stats, decode
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.backends.eager import MOST_REREAD, EagerTarget
from judge_decoding.decoding.drafters.base import Draft, Drafter, DraftRequest
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.decoding.engines import Engine
from judge_decoding.models.abilities import abilities
from judge_decoding.models.cached_lm import CachedLM
from judge_decoding.models.forward import Forward
from judge_decoding.models.recurrent import SavedStates, bounded_steps, unbounded_steps
from judge_decoding.rules import Exact, VerificationRule
from tiny import AcceptAll, Scripted, greedy, perturbed, random_head, request, run, tokens

SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SSM: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1}
PROMPTS = ([7], [5, 6, 7, 8, 9, 10, 11, 12, 13, 5, 6, 7])


def made(kind: type[PreTrainedModel], config: Any, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model whose logits lie far enough apart that rounding changes no choice."""
    torch.manual_seed(0)
    model: PreTrainedModel = kind(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.std() < 0.15:
            parameter.normal_(0, 0.3)
    return model.to(dtype)  # type: ignore[arg-type]


def bamba(dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return made(BambaForCausalLM, BambaConfig(**SIZES, **SSM, attn_layer_indices=[1, 3]), dtype)


def granite() -> PreTrainedModel:
    mixed = ["mamba", "attention"] * 2
    return made(GraniteMoeHybridForCausalLM, GraniteMoeHybridConfig(
        **SIZES, **SSM, layer_types=mixed, shared_intermediate_size=16, num_local_experts=4, num_experts_per_tok=2,
    ))  # fmt: skip


def falcon_h1() -> PreTrainedModel:
    """Both kinds side by side in each layer."""
    return made(FalconH1ForCausalLM, FalconH1Config(
        **SIZES | {"num_hidden_layers": 2}, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=4,
        mamba_n_groups=1, lm_head_multiplier=0.5, embedding_multiplier=2.0, head_dim=8,  # type: ignore[call-arg]
    ))  # fmt: skip


def qwen3_next() -> PreTrainedModel:
    return made(Qwen3NextForCausalLM, Qwen3NextConfig(
        **SIZES, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
        shared_expert_intermediate_size=16, linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2,
        linear_num_value_heads=4,
    ))  # fmt: skip


def nemotron_h(time_step_min: float) -> PreTrainedModel:
    """Its layers let no time step fall below ``time_step_min``, but only where they read several tokens at once."""
    return made(NemotronHForCausalLM, NemotronHConfig(
        **SIZES, head_dim=8, hybrid_override_pattern="M*M-", mamba_num_heads=8, mamba_head_dim=8, ssm_state_size=4,
        n_groups=1, time_step_min=time_step_min,  # type: ignore[call-arg]
    ))  # fmt: skip


def jamba(dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return made(JambaForCausalLM, JambaConfig(
        **SIZES, attn_layer_period=2, attn_layer_offset=0, mamba_d_state=4, mamba_dt_rank=4, use_mamba_kernels=False,
        num_experts=2, num_experts_per_tok=1,
    ), dtype)  # fmt: skip


def mamba(dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return made(MambaForCausalLM, MambaConfig(
        vocab_size=40, hidden_size=32, state_size=4, num_hidden_layers=2, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    ), dtype)  # fmt: skip


MODELS = {"bamba": bamba, "granite 4": granite, "falcon h1": falcon_h1, "qwen3 next": qwen3_next}


@pytest.fixture(params=list(MODELS.values()), ids=list(MODELS), scope="module")
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    built: PreTrainedModel = request.param()
    return built


def right_for(count: int, prompt: Sequence[int], answer: Sequence[int]) -> Scripted:
    """Drafts whose first ``count`` tokens are what the target says, and whose next one is not."""

    def script(ids: list[int], asked: int) -> list[int]:
        coming = [*answer[len(ids) - len(prompt) :], *[3] * asked]
        return [*coming[:count], *[(token + 1) % 40 for token in coming[count:]]][:asked]

    return Scripted(script)


@contextmanager
def forwards(model: nn.Module) -> Iterator[list[int]]:
    """How many tokens each forward reads."""
    counts: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _module, _args, kwargs: counts.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    yield counts
    hook.remove()


def test_greedy_tokens_are_those_of_generate(model: PreTrainedModel) -> None:
    """Where nothing of a draft stays, some of it, and all of it."""
    for prompt in PROMPTS:
        wanted = greedy(model, prompt, 20)
        for right in (0, 2, 5):
            rounds = run(model, right_for(right, prompt, wanted), prompt, num_draft_tokens=5, max_new_tokens=20)
            assert tokens(rounds) == wanted
            assert {event.accepted for event in rounds if len(event.draft_ids) == 5} == {right}


@pytest.mark.slow
def test_drafts_by_a_hybrid_model(model: PreTrainedModel) -> None:
    """Its own greedy continuation of whatever stayed, in as many forwards as there are draft tokens."""
    target, prompt = perturbed(model, 0.03), PROMPTS[1]
    wanted = greedy(target, prompt, 20)
    drafter = DraftModel(model, 40)
    with forwards(model) as counts:
        rounds = run(target, drafter, prompt, num_draft_tokens=4, max_new_tokens=20)
    assert tokens(rounds) == wanted
    assert len({event.accepted for event in rounds}) > 1
    so_far, expected = list(prompt), [len(prompt) - 1]
    for i, event in enumerate(rounds):
        assert list(event.draft_ids) == greedy(model, so_far, len(event.draft_ids) or 1)[: len(event.draft_ids)]
        if event.draft_ids:
            before = rounds[i - 1] if i else event
            # What stayed of the last draft is read again; if all did, nothing but its last token, for the first time.
            whole = before.accepted == len(before.draft_ids)
            first = (2 if whole else before.accepted + 1) if i else 1
            expected += [first, *[1] * (len(event.draft_ids) - 1)]
        so_far += event.token_ids
    assert counts == expected


def test_where_a_whole_draft_stays_nothing_is_read_twice() -> None:
    model, prompt = bamba(), PROMPTS[1]
    wanted = greedy(model, prompt, 24)
    abilities(model)
    with forwards(model) as counts:
        run(model, right_for(3, prompt, wanted), prompt, num_draft_tokens=3, max_new_tokens=24)
    assert counts == [len(prompt) - 1, 4, 4, 4, 4, 4, 4]


def test_what_stayed_is_read_again_in_front_of_the_next_draft() -> None:
    model, prompt = bamba(), PROMPTS[1]
    wanted = greedy(model, prompt, 60)
    abilities(model)
    with forwards(model) as counts:
        rounds = run(model, right_for(2, prompt, wanted), prompt, num_draft_tokens=5, max_new_tokens=60)
    assert tokens(rounds) == wanted
    expected, again, left = [len(prompt) - 1], 0, 60
    while left:
        draft = 0 if again > MOST_REREAD else min(5, left - 1)
        expected.append(again + 1 + draft)
        kept = min(2, draft) + 1
        # All of the draft stays, or nothing was drafted: the states behind it are those of the last known token.
        again = 0 if kept == draft + 1 else again + kept
        left -= kept
    assert counts == expected
    assert max(expected) > 5 + MOST_REREAD - 3
    assert 0 in [len(event.draft_ids) for event in rounds[:-1]]


class Keeper(AcceptAll):
    """Keeps the first two tokens of each draft, and the hidden states."""

    norm = "after"

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def accept(self, evidence: Evidence) -> Tensor:
        assert evidence.hidden is not None
        self.seen.append(evidence.hidden[0])
        return torch.arange(evidence.draft_ids.shape[1])[None] < 2


def fresh(model: PreTrainedModel, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Logits [T, V] and normed states [T, H] of one forward over the whole sequence."""
    output = model(torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False)
    return output.logits[0], output.hidden_states[-1][0]


def test_hidden_states_are_those_of_a_fresh_forward(model: PreTrainedModel) -> None:
    rule, so_far = Keeper(), list(PROMPTS[1])
    junk = Scripted(lambda ids, count: [(ids[-1] * 7 + 3) % 40] * count)
    rounds = run(model, junk, so_far, rule, num_draft_tokens=4, max_new_tokens=24)
    drafted = [event for event in rounds if event.draft_ids]
    assert {event.accepted for event in drafted[:-1]} >= {2}
    seen = iter(rule.seen)
    for event in rounds:
        if event.draft_ids:
            states = fresh(model, [*so_far, *event.draft_ids])[1][len(so_far) :]
            torch.testing.assert_close(next(seen), states, atol=1e-4, rtol=1e-4)
        so_far += event.token_ids


class Listener(Drafter):
    """Keeps the target's hidden states that it is given; its drafts are wrong."""

    needs = HiddenSource(-1, "after")

    def __init__(self) -> None:
        self.states: list[Tensor] = []

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        (own,) = requests
        assert own.hidden is not None
        self.states.append(own.hidden)
        assert sum(map(len, self.states)) == len(own.tokens) - 1
        return [Draft((own.ids[-1:] + torch.arange(own.count)) % 40)]


def test_a_drafter_gets_the_states_of_each_token_once() -> None:
    model, prompt, drafter = granite(), PROMPTS[1], Listener()
    answer = tokens(run(model, drafter, prompt, num_draft_tokens=3, max_new_tokens=44))
    assert answer == greedy(model, prompt, 44)
    found = torch.cat(drafter.states)
    states = fresh(model, [*prompt, *answer])[1][: len(found)]
    torch.testing.assert_close(found, states, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_batch_is_each_alone(model: PreTrainedModel) -> None:
    prompts = (PROMPTS[1], [20, 21, 22])
    rule = Judge(random_head(model, scale=3.0))
    options: dict[str, Any] = {"num_draft_tokens": 5, "max_new_tokens": 12}
    draft = perturbed(model, 0.05)
    alone = [tokens(run(model, DraftModel(draft, 40), prompt, rule, **options)) for prompt in prompts]
    found: list[list[int]] = [[] for _ in prompts]
    asked = [request(model, prompt, rule, **options) for prompt in prompts]
    for row, event in decode(model, DraftModel(draft, 40), asked):
        found[row] += event.token_ids
    assert found == alone


def surprise(model: PreTrainedModel, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """How far the answer's log-probability is from what the target's own answers have, in standard deviations."""
    logits = fresh(model, [*prompt, *answer])[0][len(prompt) - 1 : -1].double()
    logs, probs = logits.log_softmax(-1), logits.softmax(-1)
    mean = (probs * logs).sum(-1)
    variance = (probs * logs**2).sum(-1) - mean**2
    own = logs.gather(1, torch.tensor(answer)[:, None])[:, 0]
    return float((own - mean).sum() / variance.sum().sqrt())


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "lossless"), [(Exact(), True), (AcceptAll(), False)])
def test_sampling_keeps_the_targets_distribution(rule: VerificationRule, lossless: bool) -> None:
    model = bamba()
    model.get_output_embeddings().weight.mul_(0.4)  # so that many tokens are possible
    drafter, options = DraftModel(perturbed(model, 0.2), 40), {"temperature": 1.0, "seed": 3}
    rounds = run(model, drafter, [7, 8], rule, num_draft_tokens=3, max_new_tokens=150, **options)
    assert (abs(surprise(model, [7, 8], tokens(rounds))) < 3.3) == lossless
    if lossless:
        assert {event.accepted for event in rounds} == {0, 1, 2, 3}


@pytest.mark.parametrize("make", [mamba, jamba])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_layers_that_go_on_with_single_tokens_only_are_refused(
    make: Callable[[torch.dtype], PreTrainedModel], dtype: torch.dtype
) -> None:
    model = make(dtype)
    assert not abilities(model).cannot_read
    assert "single tokens only" in abilities(model).cannot_rewind
    with pytest.raises(JudgeDecodingError, match=r"single tokens only.*; decode without a draft"):
        run(model, PromptLookup(), [5, 6])
    with pytest.raises(JudgeDecodingError, match=r"single tokens only.*; use another draft model"):
        DraftModel(model, 40)


@torch.inference_mode()
def test_time_steps_of_a_draft_are_bounded_no_more_than_those_of_single_tokens() -> None:
    model, ids = nemotron_h(0.01), torch.tensor([5, 6, 7, 8, 9, 10, 11, 12, 13])
    cache, name = DynamicCache(config=model.config), Forward(model).cache_name or ""
    model(ids[None, :5], **{name: cache})
    singly = torch.cat([model(one[None, None], **{name: cache}).logits[0] for one in ids[5:]])
    lm = CachedLM(model, rewind="restore")
    lm.read([ids[:5]], [0])
    limits = [layer.time_step_limit for layer in bounded_steps(model)]
    assert limits == [(0.01, float("inf"))] * 2
    torch.testing.assert_close(lm.read([ids[5:]], [4])[0], singly, atol=1e-5, rtol=1e-5)
    assert [layer.time_step_limit for layer in bounded_steps(model)] == limits
    with unbounded_steps(bounded_steps(model)):  # as another thread may be
        assert len(bounded_steps(model)) == 2
    whole = model(ids[None]).logits[0, 5:]
    assert (whole - singly).std() > 1e-3 * whole.std()  # so the bound matters


@pytest.mark.parametrize("time_step_min", [0.001, 0.01])
def test_a_model_with_bounded_time_steps_is_a_target_and_a_draft(time_step_min: float) -> None:
    model, prompt = nemotron_h(time_step_min), PROMPTS[1]
    wanted = greedy(model, prompt, 20)
    assert tokens(run(model, right_for(2, prompt, wanted), prompt, num_draft_tokens=5, max_new_tokens=20)) == wanted
    drafter = DraftModel(perturbed(model, 0.03), 40)
    assert tokens(run(model, drafter, prompt, num_draft_tokens=4, max_new_tokens=20)) == wanted


def test_16_bits_are_not_refused() -> None:
    assert abilities(bamba(torch.bfloat16)).rewind == "restore"


def test_hybrids_run_eager_with_a_reason() -> None:
    engine = Engine(bamba(), None, None, "static")
    assert isinstance(engine.target, EagerTarget)
    assert "no plain KV cache" in engine.fallbacks[0]


@torch.inference_mode()
def test_saved_states_are_those_of_then() -> None:
    model = bamba()
    lm = CachedLM(model, rewind="restore")
    ids = torch.tensor([5, 6, 7, 8, 9, 10, 11, 12, 13])
    lm.read([ids[:5]], [1])
    lm.checkpoint()
    right = lm.read([ids[5:]], [4])[0]
    for wrong in ([3, 4], [20] * 7):
        lm.rewind_to([5])
        assert lm.lengths == [5]
        lm.read([torch.tensor(wrong)], [1])
    lm.rewind_to([6])  # in between there is nothing to go back to
    assert lm.lengths == [5]
    torch.testing.assert_close(lm.read([ids[5:]], [4])[0], right)
    lm.rewind_to([4])  # before the checkpoint there is nothing either
    assert lm.lengths == [0]
    torch.testing.assert_close(lm.read([ids], [4])[0], right, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_memory_of_the_copies() -> None:
    lm = CachedLM(bamba(), rewind="restore")
    lm.read([torch.tensor([5, 6, 7])], [1])
    # Two recurrent layers: 8 heads of 8 x 4 numbers, and 4 tokens of the convolution's 2 * 32 + 2 * 4 channels.
    saved, _ = tree_flatten(SavedStates(lm._cache, 3)._states)
    copies = [value.nbytes for value in saved if isinstance(value, torch.Tensor)]
    assert sum(copies) == 2 * 4 * (8 * 8 * 4 + (64 + 8) * 4)


def test_plain_decoding_copies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr("judge_decoding.models.cached_lm.SavedStates", lambda *_: made.append(1))
    model = bamba()
    abilities(model)
    made.clear()
    assert Stats.of(run(model, None, PROMPTS[1], max_new_tokens=8)).rounds == 8
    assert not made
