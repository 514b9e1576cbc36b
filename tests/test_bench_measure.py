"""What the benchmark measures with: turns, checked tokens, the best draft lengths. Never a time itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.fx import GraphModule
from transformers import CompileConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from judge_decoding import JudgeDecoder, JudgeHead
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.bench import contenders as contenders_module
from judge_decoding.evaluation.bench.bench import alone, choose, compared, static_assisted, tuning_steps
from judge_decoding.evaluation.bench.contenders import (
    Assistance,
    BatchAnswers,
    ContenderLabel,
    counted,
    up_to_end,
)
from judge_decoding.evaluation.bench.measure import Measurement, measure
from judge_decoding.evaluation.bench.plan import BEST, Models, candidates, contenders
from judge_decoding.evaluation.bench.results import ratio, row
from judge_decoding.models.first_layers import first_layers
from tiny import EOS, greedy, llama, perturbed

PROMPTS = [torch.tensor(ids) for ids in ([4, 5, 6], [7, 8], [9, 10, 11, 12], [13, 14])]
BUDGET = 16


@dataclass
class Said:
    """A way that says what it is told to, in as many seconds."""

    label: ContenderLabel
    tokens: Sequence[tuple[int, ...]]
    seconds: Sequence[float] = (1.0,)
    same_tokens: bool = True
    batches: list[list[list[int]]] = field(default_factory=list)

    def answer(self, prompts: Sequence[Tensor]) -> BatchAnswers:
        self.batches.append([ids.tolist() for ids in prompts])
        seconds = self.seconds[min(len(self.batches) - 1, len(self.seconds) - 1)]
        every = [ids.tolist() for ids in PROMPTS]
        return BatchAnswers(tuple(self.tokens[every.index(ids.tolist())] for ids in prompts), seconds, forwards=3)


def said(family: str, *seconds: float, length: int = 0, note: str = "") -> Said:
    return Said(ContenderLabel(family, "", length, note), [(1, 2), (3,), (4,), (5,)], seconds or (1.0,))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def models(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, draft: PreTrainedModel, head: JudgeHead
) -> Models:
    return Models(JudgeDecoder(target, tokenizer, draft, head, num_draft_tokens=3), BUDGET)


def test_ways_take_turns_and_who_begins_changes() -> None:
    told: list[tuple[int, str]] = []
    three = [said("generate"), said("plain"), said("exact")]
    measure(three, PROMPTS, (), repetitions=3, progress=lambda *one: told.append(one))
    order = [[name for number, name in told if number == repetition] for repetition in range(4)]
    assert order == [
        ["generate", "plain", "exact"],
        ["plain", "exact", "generate"],
        ["exact", "generate", "plain"],
        ["generate", "plain", "exact"],
    ]


def test_the_warm_up_is_not_counted_and_batches_are_of_their_size() -> None:
    way = said("generate", 100.0, 100.0, 2.0, 3.0, 4.0, 5.0)
    found = measure([way], PROMPTS, (), batch_size=3, repetitions=2)["generate"]
    assert found.seconds == [5.0, 9.0]
    assert found.speeds == [1.0, 5 / 9]
    assert [len(batch) for batch in way.batches] == [3, 1] * 3
    short = said("generate")
    measure([short], PROMPTS, (), repetitions=1, warm_up=1)
    assert len(short.batches) == 1 + len(PROMPTS)


def test_other_tokens_are_found_in_any_repetition() -> None:
    right = [(1, 2), (3,), (4,), (5,)]
    good, bad = said("generate"), said("exact")
    bad.tokens = [(1, 2), (3,), (9,), (5,)]
    found = measure([good, bad], PROMPTS, right, repetitions=1)
    assert (found["generate"].unlike, found["exact"].unlike) == (set(), {2})

    class Fickle(Said):
        def answer(self, prompts: Sequence[Tensor]) -> BatchAnswers:
            given = super().answer(prompts)
            return given if len(self.batches) != 2 else BatchAnswers(((7,),) * len(prompts), 1.0)

    fickle = Fickle(ContenderLabel("vllm"), right)
    assert measure([fickle], PROMPTS, right, batch_size=4, repetitions=3)["vllm"].unlike == {0, 1, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_exact_way_says_what_generate_says(models: Models, batch_size: int) -> None:
    expected = alone(models, PROMPTS)
    for ids, own in zip(PROMPTS, expected, strict=True):
        assert list(own) == greedy(models.decoder.target, ids.tolist(), BUDGET, stop=True)
    kinds = candidates(models, batch_size, (2, 4))
    best = {kind: some[0] for kind, some in kinds.items()}
    some = contenders(models, best, [5])
    assert len({way.label.name for way in some}) == len(some)
    found = measure(some, PROMPTS, expected, batch_size=batch_size, repetitions=1)
    for way in some:
        if way.same_tokens:
            assert not found[way.label.name].unlike, way.label.name
    judged = [way.label.name for way in some if not way.same_tokens]
    assert judged == ["judge, eager, M=2, best", "judge, eager, M=3, its own"]
    assert ("assisted" in {way.label.family for way in some}) == (batch_size == 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler
def test_assisted_generation_with_a_static_cache_says_the_same_or_is_left_out_with_the_reason(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = []

    def run_as_it_is(graph: GraphModule, *_: object, **__: object) -> Callable[..., Any]:
        traced.append(graph)
        return graph.forward

    # Traced as ever, but not compiled, which takes a minute and is not ours.
    monkeypatch.setattr(contenders_module, "CompileConfig", partial(CompileConfig, backend=run_as_it_is))
    shallow = llama(0, layers=1)
    models = Models(JudgeDecoder(shallow, tokenizer, perturbed(shallow), num_draft_tokens=3), BUDGET)
    left_out: dict[str, str] = {}
    best = {"assisted": models.assisted(Assistance(2, 0.0), BEST)}
    found = static_assisted(models, best, PROMPTS, left_out)
    if tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 24):
        assert found is None
        assert re.match(
            r"transformers 5\.\d+\.\d+.*: assisted generat.* Static", left_out["assisted, static, M=2, best"]
        )
        return
    assert found is not None, left_out
    expected = alone(models, PROMPTS)
    assert [found.answer([ids]).tokens[0] for ids in PROMPTS] == expected
    assert traced
    names = [way.label.name for way in contenders(models, best | {"exact": models.exact(2, BEST)}, [], found)]
    assert names.index("assisted, static, M=2, best") == names.index("assisted, M=2, best") + 1


def test_without_assisted_generation_there_is_none_with_a_static_cache(models: Models) -> None:
    left_out: dict[str, str] = {}
    assert static_assisted(models, {}, PROMPTS, left_out) is None
    assert not left_out


def test_at_equal_draft_length_both_make_the_same_rounds(models: Models) -> None:
    assisted = models.assisted(Assistance(4, 0.0), "equal")
    exact = models.exact(4)
    for prompt in PROMPTS:
        theirs, ours = assisted.answer([prompt]), exact.answer([prompt])
        assert theirs.tokens == ours.tokens
        assert theirs.forwards == ours.forwards == len(ours.rounds[0])


def test_the_assistants_settings_are_put_back(models: Models) -> None:
    assert models.draft is not None
    config: Any = models.draft.generation_config
    before = config.to_dict()
    models.assisted(Assistance(4, 0.0), "equal").answer(PROMPTS[:1])
    assert config.to_dict() == before


def test_only_the_targets_own_forwards_are_counted(target: LlamaForCausalLM) -> None:
    short = first_layers(target, 1)
    with counted(target) as forwards:
        target(PROMPTS[0][None])
        short(PROMPTS[0][None])
    assert forwards == [1]
    target(PROMPTS[0][None])
    assert forwards == [1]


def test_answers_end_with_their_end_token() -> None:
    assert up_to_end([4, EOS, 0, 0], frozenset([EOS])) == (4, EOS)
    assert up_to_end([4, 5], frozenset([EOS])) == (4, 5)


def test_ratios_are_of_medians_and_in_pairs() -> None:
    found = ratio("a", "b", 1, [4.0, 2.0, 9.0], [2.0, 2.0, 3.0])
    assert (found.medians, found.paired, found.low, found.high) == (2.0, 2.0, 1.0, 3.0)


def test_the_first_layers_are_a_model_of_their_own(target: LlamaForCausalLM) -> None:
    deep = llama(3, layers=3)
    short = first_layers(deep, 2)
    assert (len(short.model.layers), short.config.num_hidden_layers) == (2, 2)
    assert (len(deep.model.layers), deep.config.num_hidden_layers) == (3, 3)
    assert short.model.layers[1] is deep.model.layers[1]
    assert short.generation_config is not deep.generation_config
    ids = PROMPTS[2][None]
    states = deep(ids, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(short(ids).logits, deep.lm_head(deep.model.norm(states)))
    for count in (0, 3):
        with pytest.raises(JudgeDecodingError):
            first_layers(deep, count)


def test_the_fastest_is_chosen_by_halving() -> None:
    # As slow as their length is far from 4.
    kinds = {
        kind: [said(kind, 1.0 + abs(n - 4), length=n, note=BEST) for n in (1, 2, 3, 4, 7, 8)]
        for kind in ("exact", "judge")
    }
    told: list[int] = []
    best = choose(kinds, PROMPTS, 4, advance=lambda: told.append(1))
    assert {kind: way.label.num_draft_tokens for kind, way in best.items()} == {"exact": 4, "judge": 4}
    assert len(told) == tuning_steps(kinds) == 2 * (6 + 3 + 2)
    tries = {way.label.num_draft_tokens: len(way.batches) - 1 for way in kinds["exact"]}  # one is the warm-up
    assert tries == {1: 1, 2: 2, 3: 3, 4: 3, 7: 1, 8: 1}
    assert choose({}, PROMPTS, 1) == {}


def test_rows_are_held_against_generate_assisted_and_each_other() -> None:
    speeds = {
        ContenderLabel("generate"): 10.0,
        ContenderLabel("plain", "static"): 12.0,
        ContenderLabel("assisted", "", 0, "defaults"): 8.0,
        ContenderLabel("assisted", "", 2, "best"): 20.0,
        ContenderLabel("assisted", "", 4, "equal"): 16.0,
        ContenderLabel("exact", "static", 4, "best"): 48.0,
        ContenderLabel("exact", "static", 0, "cost-optimal"): 36.0,
        ContenderLabel("exact", "eager", 4): 24.0,
        ContenderLabel("judge", "static", 8, "best"): 96.0,
        ContenderLabel("vllm"): 4.0,
    }
    found = {label.name: Measurement(new_tokens=[6], seconds=[6 / speed]) for label, speed in speeds.items()}
    rows = [row(label, found[label.name], 1, same_tokens=True) for label in speeds]
    told, ratios = compared(rows, found)
    over = {one.name: (one.over_generate and one.over_generate.medians, one.over_assisted and one.over_assisted.medians)
            for one in told}  # fmt: skip
    assert over["generate"] == (None, 0.5)
    assert over["assisted, M=2, best"] == (2.0, None)
    assert over["judge, static, M=8, best"] == pytest.approx((9.6, 4.8))
    assert {(one.of, one.over): round(one.medians, 6) for one in ratios} == {
        ("exact, static, M=4, best", "assisted, M=2, best"): 2.4,
        ("exact, static, M=4, best", "assisted, defaults"): 6.0,
        ("exact, static, M=4, best", "assisted, M=4, equal"): 3.0,
        ("judge, static, M=8, best", "exact, static, M=4, best"): 2.0,
        ("exact, static, M=4, best", "plain, static"): 4.0,
        ("exact, static, cost-optimal", "plain, static"): 3.0,
        ("plain, static", "generate"): 1.2,
        ("exact, static, M=4, best", "exact, eager, M=4"): 2.0,
        ("exact, static, M=4, best", "vllm"): 12.0,
        ("judge, static, M=8, best", "vllm"): 24.0,
    }
