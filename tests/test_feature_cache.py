"""Features on disk: each answer is read once, whatever is trained and whenever it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaForCausalLM, PreTrainedModel

from judge_decoding import Case, JudgeDecodingError, TrainingConfig, train_head
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.judge.head import prompts_for
from judge_decoding.judge.target import target_info
from judge_decoding.models.forward import input_rows
from judge_decoding.models.teacher_forcing import BATCH_TOKENS, hidden_states
from judge_decoding.training.features import BASELINES, Column, FeatureCache, default_folder, read
from judge_decoding.training.labels import Example, encode
from test_training import word_cases
from tiny import VOCAB_SIZE, final_norm, llama, perturbed, word_tokenizer


@contextmanager
def counted(model: PreTrainedModel) -> Iterator[list[int]]:
    """How many sequences each forward of ``model`` reads, besides those that look at the model itself."""
    target_info(model)
    forwards: list[int] = []
    stored = prompts_for(input_rows(model))  # read again for each new head, whose scores are stored

    def count(_module: nn.Module, _args: object, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].tolist() != stored:
            forwards.append(len(kwargs["input_ids"]))

    hook = model.get_decoder().register_forward_pre_hook(count, with_kwargs=True)
    yield forwards
    hook.remove()


def softcapped(context: int) -> PreTrainedModel:
    """Something is done to the logits behind the output embeddings."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=context, final_logit_softcapping=2.0,
        initializer_range=0.3, sliding_window=context,
    )  # fmt: skip
    return Gemma2ForCausalLM(config).eval().requires_grad_(False)


class AllLogits(LlamaForCausalLM):
    """As models of other people's code: no ``logits_to_keep``, and a tuple."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool | None = None
    ) -> tuple[Tensor]:
        return (self.lm_head(self.model(input_ids, attention_mask, use_cache=use_cache)[0]),)


def bfloat16(model: Any) -> PreTrainedModel:
    halved: PreTrainedModel = model.to(torch.bfloat16)
    return halved


def no_few_logits(context: int) -> PreTrainedModel:
    model = llama(0, context=context)
    model.config.return_dict = False
    other = AllLogits(model.config).eval().requires_grad_(False)
    other.load_state_dict(model.state_dict())
    return other


@pytest.fixture
def model() -> LlamaForCausalLM:
    return llama(0)


def examples(cases: list[Case] | None = None) -> list[Example]:
    return [encode(case, word_tokenizer()) for case in cases or word_cases()]


def column(cache: FeatureCache, name: Column, given: list[Example], width: int = 32) -> Tensor:
    """All judged tokens of a column."""
    everything = [torch.ones(len(e.judged), dtype=torch.bool) for e in given]
    count = sum(map(len, everything))
    out = torch.full((count, width) if isinstance(name, HiddenSource) else (count,), torch.nan)
    cache.fill(out, name, given, everything)
    return out


def fresh(model: PreTrainedModel, place: HiddenSource, given: list[Example]) -> Tensor:
    """The same in one forward a sequence."""
    states = hidden_states(model, [e.ids for e in given], place.norm, place.layer, batch_tokens=1)
    return torch.cat([state[list(e.judged)] for state, e in zip(states, given, strict=True)])


@pytest.mark.parametrize("shard_bytes", [1, 2000, 2**24])
def test_what_is_stored_is_what_the_model_says(model: LlamaForCausalLM, tmp_path: Path, shard_bytes: int) -> None:
    given = examples()
    places = [HiddenSource(), HiddenSource(-1, "before"), HiddenSource(-2, "before")]
    cache = FeatureCache(tmp_path, model, shard_bytes=shard_bytes)
    cache.add(given, places, batch_tokens=40)
    for place in places:
        torch.testing.assert_close(column(cache, place, given), fresh(model, place, given), atol=1e-5, rtol=1e-4)
    shards = len(list(cache.folder.glob("*.safetensors")))
    assert (shards == 1) == (shard_bytes == 2**24)


def test_only_the_tokens_wanted_are_copied(model: LlamaForCausalLM, tmp_path: Path) -> None:
    given = examples()
    used = [torch.arange(len(e.judged)) % 2 == 0 for e in given]
    cache = FeatureCache(tmp_path, model)
    cache.add(given, [HiddenSource()])
    out = torch.empty(sum(int(u.sum()) for u in used), 32)
    cache.fill(out, HiddenSource(), given, used)
    torch.testing.assert_close(out, column(cache, HiddenSource(), given)[torch.cat(used)])


def test_a_batch_holds_no_more_tokens_than_it_may(model: LlamaForCausalLM) -> None:
    sequences = [[5] * n for n in (3, 9, 1, 12, 9, 2, 7)]
    sizes: list[tuple[int, int]] = []
    final_norm(model)  # looking for it takes a forward, once
    hook = model.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: sizes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    everywhere = [range(len(ids)) for ids in sequences]
    read_ones = [i for i, _ in read(model, sequences, everywhere, [HiddenSource()], batch_tokens=10)]
    hook.remove()
    assert sizes == [(3, 3), (1, 7), (1, 9), (1, 9), (1, 12)]
    assert sorted(read_ones) == list(range(7))


def test_forwards_are_full_and_hold_little_padding() -> None:
    model = llama(0, context=512)
    lengths = torch.randint(60, 300, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    sizes: list[int] = []
    final_norm(model)
    hook = model.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    for _ in read(model, [[5] * n for n in lengths], [[n - 1] for n in lengths], [HiddenSource()]):
        pass
    hook.remove()
    tokens = sum(lengths)
    assert 1 - tokens / sum(sizes) < 0.05
    assert len(sizes) < 1.15 * tokens / BATCH_TOKENS


def test_few_logits_are_computed_unless_asked_for(model: LlamaForCausalLM) -> None:
    final_norm(model)
    calls: list[tuple[int, ...]] = []
    hook = model.lm_head.register_forward_pre_hook(lambda _module, args: calls.append(tuple(args[0].shape[:2])))
    list(read(model, [[1, 2, 3, 4, 5]] * 2, [[3, 4]] * 2, [HiddenSource()]))
    assert calls == [(2, 1)]
    list(read(model, [[1, 2, 3, 4, 5]] * 2, [[3, 4], [4]], [HiddenSource(), *BASELINES]))
    hook.remove()
    assert calls[1:] == [(2, 3)]


@pytest.mark.parametrize("build", [llama, softcapped, no_few_logits])
def test_the_baselines_are_log_probability_and_rank(build: Callable[..., PreTrainedModel]) -> None:
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(3, VOCAB_SIZE, (n,), generator=generator).tolist() for n in (1500, 4, 6)]
    kept = [list(range(0, 1500, 2)), [0, 3], [5]]
    long = build(context=2048)
    everything = list(read(long, sequences, kept, [HiddenSource(), *BASELINES], batch_tokens=2000))
    assert sorted(i for i, _ in everything) == [0, 1, 2]
    for i, found in everything:
        output = long(torch.tensor([sequences[i]]))
        logits = output[0][0]
        states = hidden_states(long, [sequences[i]], "after")[0]
        torch.testing.assert_close(found[HiddenSource()], states[kept[i]], atol=1e-5, rtol=1e-4)
        for n, at in enumerate(kept[i]):
            logprob, rank = (float(found[name][n]) for name in BASELINES)
            if at:
                own = logits[at - 1].log_softmax(-1)
                assert logprob == pytest.approx(float(own[sequences[i][at]]), abs=1e-4)
                assert -rank == int((own > own[sequences[i][at]]).sum())
            else:
                assert (logprob, rank) == (0, 0)


def test_an_answer_is_read_once_whatever_is_trained(model: LlamaForCausalLM, tmp_path: Path) -> None:
    tokenizer, cases = word_tokenizer(), word_cases()
    with counted(model) as forwards:
        first = train_head(model, tokenizer, cases, cache=tmp_path)
        assert sum(forwards) == 40 + 20  # the answers, and their questions once more
        forwards.clear()
        for change in (
            {"labels": "from_error"}, {"labels": "error", "after_error": "correct"}, {"l2": (0.5,)}, {"folds": 3},
            {"aim": "keep=0.9"}, {"class_weights": "none"}, {"wrong_weight": 2.0},
        ):  # fmt: skip
            train_head(model, tokenizer, cases, TrainingConfig(**change), cache=tmp_path)
        again = train_head(model, tokenizer, cases, cache=tmp_path)
    assert forwards == []
    assert torch.equal(first.linear.weight, again.linear.weight)
    assert first.config == again.config


def test_corrected_labels_need_no_forward(model: LlamaForCausalLM, tmp_path: Path) -> None:
    cases = word_cases()
    train_head(model, word_tokenizer(), cases, cache=tmp_path)
    moved = [case.model_copy(update={"errors": tuple((0, 1) for _ in case.errors)}) for case in cases]
    with counted(model) as forwards:
        train_head(model, word_tokenizer(), moved, cache=tmp_path)
    assert forwards == []


def test_only_new_cases_and_new_places_are_read(model: LlamaForCausalLM, tmp_path: Path) -> None:
    tokenizer, cases = word_tokenizer(), word_cases(60)
    train_head(model, tokenizer, cases[:40], cache=tmp_path)
    with counted(model) as forwards:
        train_head(model, tokenizer, cases, cache=tmp_path)
        assert sum(forwards) == 20 + 10
        forwards.clear()
        both = train_head(model, tokenizer, cases, TrainingConfig(norm="both", layers=(-1, -2)), cache=tmp_path)
        # Once for all the places, and once more to look at the model where the best one reads.
        assert sum(forwards) == 60 + 30 + 1
        forwards.clear()
        train_head(model, tokenizer, cases, TrainingConfig(norm="before"), cache=tmp_path)
    # The questions alone, as another place had been the best, and the look at the model.
    assert sum(forwards) == 30 + 1
    alone = train_head(model, tokenizer, cases, TrainingConfig(norm="both", layers=(-1, -2)))
    assert both.config == alone.config


def test_the_same_answer_twice_is_read_once(model: LlamaForCausalLM, tmp_path: Path) -> None:
    told: list[int] = []
    twice = examples() * 2
    cache = FeatureCache(tmp_path, model)
    with counted(model) as forwards:
        cache.add(twice, [HiddenSource()], progress=told.append)
    assert sum(forwards) == 40
    assert sum(told) == 80
    assert torch.equal(*column(cache, HiddenSource(), twice).chunk(2))


class Killed(BaseException):
    """Nothing catches it."""


def test_a_stopped_reading_goes_on_at_the_next_shard(model: LlamaForCausalLM, tmp_path: Path) -> None:
    given = examples()

    def stop_after(answers: int) -> None:
        told: list[int] = []

        def progress(count: int) -> None:
            told.append(count)
            if sum(told) >= answers:
                raise Killed

        # A batch of about four answers, and a shard for every two batches.
        cache = FeatureCache(tmp_path, model, shard_bytes=4000)
        with pytest.raises(Killed):
            cache.add(given, [HiddenSource()], batch_tokens=28, progress=progress)

    with counted(model) as forwards:
        stop_after(20)
        read_before = sum(forwards)
        forwards.clear()
        known = FeatureCache(tmp_path, model)
        known.add(given, [HiddenSource()])
        read_after = sum(forwards)
    assert read_before >= 20
    lost = read_before + read_after - 40
    assert 0 <= lost <= 8
    assert read_after < 28
    torch.testing.assert_close(
        column(known, HiddenSource(), given), fresh(model, HiddenSource(), given), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "renamed", "another model's"])
def test_a_damaged_or_foreign_shard_is_read_again(model: LlamaForCausalLM, tmp_path: Path, damage: str) -> None:
    given = examples()
    cache = FeatureCache(tmp_path, model, shard_bytes=4000)
    cache.add(given, [HiddenSource()], batch_tokens=28)
    shards = sorted(cache.folder.glob("*.safetensors"))
    assert len(shards) > 3
    content = bytearray(shards[0].read_bytes())
    if damage == "cut":
        shards[0].write_bytes(content[:-7])
    elif damage == "flipped":
        content[-5] ^= 1
        shards[0].write_bytes(content)
    elif damage == "empty":
        shards[0].write_bytes(b"")
    elif damage == "renamed":
        shards[0].write_bytes(shards[1].read_bytes())
    else:
        other = FeatureCache(tmp_path, llama(1))
        other.add(given, [HiddenSource()])
        shards[0].unlink()
        (foreign,) = other.folder.glob("*.safetensors")
        (cache.folder / foreign.name).write_bytes(foreign.read_bytes())
    again = FeatureCache(tmp_path, model)
    with counted(model) as forwards:
        again.add(given, [HiddenSource()])
    assert 0 < sum(forwards) < 20
    torch.testing.assert_close(
        column(again, HiddenSource(), given), fresh(model, HiddenSource(), given), atol=1e-5, rtol=1e-4
    )


def test_another_model_has_features_of_its_own(model: LlamaForCausalLM, tmp_path: Path) -> None:
    """Also one that differs in a lower layer only, in precision only, or in its window only."""
    FeatureCache(tmp_path, model).add(examples(), [HiddenSource()])
    tuned: Any = llama(0)
    tuned.model.layers[0].mlp.up_proj.weight += 0.01
    longer, half = llama(0), bfloat16(llama(0))
    longer.config.rope_parameters = {"rope_type": "default", "rope_theta": 5000.0}
    for other in (perturbed(model), tuned, half, longer):
        with counted(other) as forwards:
            FeatureCache(tmp_path, other).add(examples(), [HiddenSource()])
        assert sum(forwards) == 40
    named = llama(0)
    named.config.name_or_path = "elsewhere"
    with counted(named) as forwards:
        FeatureCache(tmp_path, named).add(examples(), [HiddenSource()])
    assert forwards == []


def test_half_precision_is_stored_as_it_is(tmp_path: Path) -> None:
    half = bfloat16(llama(0))
    cache = FeatureCache(tmp_path, half)
    cache.add(examples(), [HiddenSource()])
    size = sum(path.stat().st_size for path in cache.folder.glob("*"))
    numbers = sum(len(e.judged) for e in examples()) * 32
    assert 2 * numbers < size < 3.5 * numbers
    found = column(cache, HiddenSource(), examples())
    torch.testing.assert_close(found, fresh(half, HiddenSource(), examples()), atol=0.1, rtol=0.02)
    assert torch.equal(found, found.bfloat16().float())


def test_a_cache_that_cannot_be_written_is_refused(model: LlamaForCausalLM, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JudgeDecodingError):
        train_head(model, word_tokenizer(), word_cases(), cache=tmp_path / "file")


def test_the_default_folder_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "judge-decoding" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "judge-decoding" / "features"
