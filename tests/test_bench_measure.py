"""What the benchmark measures with: turns, checked tokens, full rounds, bare calls, floors. Never a time itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from judge_decoding import CostOptimal, Exact, JudgeDecoder, JudgeHead
from judge_decoding.core.rounds import Round, Seconds
from judge_decoding.decoding.lengths import Fixed
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.bench import limits as limits_module
from judge_decoding.evaluation.bench.limits import (
    Bare,
    BareCalls,
    Machine,
    Shape,
    Work,
    efficiency,
    measure_machine,
    round_work,
    timed,
    work,
)
from judge_decoding.evaluation.bench.measure import Measured, Steady, measure, steady
from judge_decoding.evaluation.bench.memory import Job, measure_memory
from judge_decoding.evaluation.bench.plan import BEST, Models, candidates, ways
from judge_decoding.evaluation.bench.results import limits, ratio, row
from judge_decoding.evaluation.bench.run import Probes, alone, choose, compared, tuning_steps
from judge_decoding.evaluation.bench.ways import (
    Answers,
    Assistance,
    Clock,
    Label,
    counted,
    up_to_end,
)
from judge_decoding.models.first_layers import first_layers
from tiny import EOS, greedy, llama

PROMPTS = [torch.tensor(ids) for ids in ([4, 5, 6], [7, 8], [9, 10, 11, 12], [13, 14])]
BUDGET = 16


@dataclass
class Said:
    """A way that says what it is told to, in as many seconds."""

    label: Label
    tokens: Sequence[tuple[int, ...]]
    seconds: Sequence[float] = (1.0,)
    same_tokens: bool = True
    batches: list[list[list[int]]] = field(default_factory=list)

    def answer(self, prompts: Sequence[Tensor]) -> Answers:
        self.batches.append([ids.tolist() for ids in prompts])
        seconds = self.seconds[min(len(self.batches) - 1, len(self.seconds) - 1)]
        every = [ids.tolist() for ids in PROMPTS]
        return Answers(tuple(self.tokens[every.index(ids.tolist())] for ids in prompts), seconds, forwards=3)


def said(family: str, *seconds: float, length: int = 0, note: str = "") -> Said:
    return Said(Label(family, "", length, note), [(1, 2), (3,), (4,), (5,)], seconds or (1.0,))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def models(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, draft: PreTrainedModel, head: JudgeHead
) -> Models:
    return Models(JudgeDecoder(target, tokenizer, draft, head, num_draft_tokens=3), BUDGET)


def test_ways_take_turns_and_who_begins_changes() -> None:
    told: list[tuple[int, str]] = []
    three = [said("generate"), said("plain"), said("exact")]
    measure(three, PROMPTS, (), repetitions=3, tell=lambda *one: told.append(one))
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


def test_probes_are_measured_behind_each_batch_of_each_way() -> None:
    told: list[str] = []
    two = [said("generate"), said("plain")]
    measure(two, PROMPTS, (), repetitions=2, probe=lambda way: told.append(way.label.name))
    assert told == [name for name in ("plain", "generate", "generate", "plain") for _ in PROMPTS]  # no warm-up


def test_other_tokens_are_found_in_any_repetition() -> None:
    right = [(1, 2), (3,), (4,), (5,)]
    good, bad = said("generate"), said("exact")
    bad.tokens = [(1, 2), (3,), (9,), (5,)]
    found = measure([good, bad], PROMPTS, right, repetitions=1)
    assert (found["generate"].unlike, found["exact"].unlike) == (set(), {2})

    class Fickle(Said):
        def answer(self, prompts: Sequence[Tensor]) -> Answers:
            given = super().answer(prompts)
            return given if len(self.batches) != 2 else Answers(((7,),) * len(prompts), 1.0)

    fickle = Fickle(Label("vllm"), right)
    assert measure([fickle], PROMPTS, right, batch_size=4, repetitions=3)["vllm"].unlike == {0, 1, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_exact_way_says_what_generate_says(models: Models, batch_size: int) -> None:
    expected = alone(models, PROMPTS)
    for ids, own in zip(PROMPTS, expected, strict=True):
        assert list(own) == greedy(models.decoder.target, ids.tolist(), BUDGET, stop=True)
    kinds = candidates(models, batch_size, (2, 4))
    best = {kind: some[0] for kind, some in kinds.items()}
    some = ways(models, best, [5])
    assert len({way.label.name for way in some}) == len(some)
    found = measure(some, PROMPTS, expected, batch_size=batch_size, repetitions=1)
    for way in some:
        if way.same_tokens:
            assert not found[way.label.name].unlike, way.label.name
    judged = [way.label.name for way in some if not way.same_tokens]
    assert judged == ["judge, eager, M=2, best", "judge, eager, M=3, its own"]
    assert ("assisted" in {way.label.family for way in some}) == (batch_size == 1)


def test_at_equal_draft_length_both_make_the_same_rounds(models: Models) -> None:
    assisted = models.assisted(Assistance(4, 0.0), "equal")
    exact = models.exact(4)
    for prompt in PROMPTS:
        theirs, ours = assisted.answer([prompt]), exact.answer([prompt])
        assert theirs.tokens == ours.tokens
        assert theirs.forwards == ours.forwards == len(ours.rounds[0])


def test_the_assistants_settings_are_put_back(models: Models) -> None:
    config = models.draft.generation_config
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


def test_the_clock_changes_nothing(models: Models) -> None:
    clock = Clock(Fixed(3))
    assert [clock.next() for _ in range(4)] == [3] * 4
    assert len(clock.laps) == 3
    clocked = models.policy(3)
    plain = models.decoder.generate(PROMPTS[0][None], BUDGET, rule=Exact(), draft_length=CostOptimal)
    assert clocked.answer(PROMPTS[:1]).tokens == (plain.token_ids,)


def event(drafted: int, kept: int, verify: float = 1.0) -> Round:
    return Round(
        tuple(range(drafted)), tuple(range(kept)), (), (), seconds=Seconds(draft=0.5, verify=verify, rule=0.25)
    )


def test_full_rounds_are_those_with_the_whole_draft_and_all_rows() -> None:
    first = (event(4, 2, 9.0), event(4, 3, 1.0), event(4, 1, 3.0), event(2, 1), event(4, 5, 7.0))
    second = (event(4, 1, 9.0), event(4, 5, 1.0), event(4, 1, 3.0))
    batch = Answers(((), ()), 1.0, 5, (10, 20), (first, second), ((90.0, 2.0, 4.0, 8.0), (90.0, 2.0)))
    # The first rounds read the prompt, the second row's last has no next one, and so on.
    assert steady(batch, 4) == Steady(2.0, Seconds(0.5, 1.0, 0.25, 0.0), (12 + 21) / 2, 1)
    single = Answers(((),), 1.0, 5, (10,), (first,), ((90.0, 2.0, 4.0, 8.0),))
    assert steady(single, 4) == Steady(3.0, Seconds(0.5, 2.0, 0.25, 0.0), (12 + 15) / 2, 2)
    assert steady(single, 3) is None


def test_rounds_of_a_smaller_last_batch_are_left_aside(models: Models) -> None:
    """Its bare calls are those of a whole batch."""
    way = models.exact(3, BEST)
    name = way.label.name
    found = measure([way], PROMPTS[1:], (), batch_size=2, repetitions=2)[name].steady
    assert [one is None for one in found] == [False, True] * 2
    assert all(measure([way], PROMPTS[1:], (), batch_size=5, repetitions=1)[name].steady)


def test_efficiency_is_bare_calls_over_the_round() -> None:
    assert efficiency(8, Bare(verify=4.0, draft=0.5), lap=10.0) == 0.8
    assert efficiency(0, Bare(verify=4.0), lap=5.0) == 0.8


def test_efficiency_pairs_a_batch_with_what_was_measured_behind_it() -> None:
    parts = Seconds(1.0, 2.0, 0.5, 0.5)
    own = Measured(steady=[Steady(4.0, parts, 30.0, 7), None, Steady(8.0, parts, 32.0, 9)])
    bare = [Bare(1.0, 0.5, 0.75), Bare(9.0, 9.0, 9.0), Bare(2.0, 1.0, 1.5)]  # the second stands beside no full round
    found = limits(own, Label("exact", "static", 4), bare, Work(100.0, 50.0), Machine(10.0, 25.0))
    assert found is not None
    assert found.efficiency == 0.75  # (4 * 0.5 + 1) / 4 and (4 * 1 + 2) / 8
    assert (found.t_verify, found.t_draft, found.t_draft_alone) == (2.0, 1.0, 1.5)
    assert (found.round, found.context, found.rounds) == (6.0, 31.0, 16)
    assert (found.bytes_seconds, found.flops_seconds) == (10.0, 2.0)
    assert found.parts.model_dump() == {"draft": 1.0, "verify": 2.0, "rule": 0.5, "overhead": 0.5}
    assert limits(Measured(steady=[None]), Label("exact"), [], Work(1, 1), Machine(1, 1)) is None


def test_ratios_are_of_medians_and_in_pairs() -> None:
    found = ratio("a", "b", 1, [4.0, 2.0, 9.0], [2.0, 2.0, 3.0])
    assert (found.medians, found.paired, found.low, found.high) == (2.0, 2.0, 1.0, 3.0)


def test_the_work_of_a_forward_is_that_of_its_weights_and_cache() -> None:
    model = llama(0, vocab_size=40, hidden_size=32, layers=2)
    layer = sum(weight.numel() for weight in model.model.layers[0].parameters() if weight.ndim == 2)
    norms = sum(weight.numel() for weight in model.parameters() if weight.ndim == 1)
    products = 2 * layer + 40 * 32
    found = work(model, 3, 10, 2)
    keys_and_values = 2 * 2 * 2 * 8 * 13 * 2  # both, layers, heads, width, columns, rows
    assert found.bytes == 4 * (products + norms + keys_and_values)
    assert found.flops == 2 * products * 3 * 2 + 4 * 2 * 4 * 8 * 13 * 3 * 2
    tied = llama(0)
    tied.lm_head.weight = tied.model.embed_tokens.weight
    assert work(tied, 1, 0, 1).bytes == work(llama(0), 1, 0, 1).bytes  # the table is the head, read whole


def test_a_round_is_one_forward_of_the_target_and_one_of_the_draft_a_token() -> None:
    target, draft = llama(0), llama(1, layers=1)
    whole, verify, step = round_work(target, draft, Shape(2, 3, 10)), work(target, 4, 10, 2), work(draft, 1, 10, 2)
    assert whole == Work(verify.bytes + 3 * step.bytes, verify.flops + 3 * step.flops)
    assert round_work(target, None, Shape(1, 0, 10)) == work(target, 1, 10, 1)


def test_the_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(limits_module, "LEAST_CALLS", 2)
    found = measure_machine(torch.device("cpu"), torch.float32, megabytes=1, size=8)
    assert found.bandwidth > 0
    assert found.flops > 0


def test_a_call_is_timed_as_often_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "LEAST_SECONDS", 0.0)
    calls: list[int] = []
    timed([lambda: calls.append(1)], torch.device("cpu"))
    assert len(calls) == 1 + limits_module.LEAST_CALLS


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
        with pytest.raises(JudgeDecodingError, match="has 3; take from 1 to 2"):
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
        Label("generate"): 10.0,
        Label("plain", "static"): 12.0,
        Label("assisted", "", 0, "defaults"): 8.0,
        Label("assisted", "", 2, "best"): 20.0,
        Label("assisted", "", 4, "equal"): 16.0,
        Label("exact", "static", 4, "best"): 48.0,
        Label("exact", "static", 0, "cost-optimal"): 36.0,
        Label("exact", "eager", 4): 24.0,
        Label("judge", "static", 8, "best"): 96.0,
        Label("vllm"): 4.0,
    }
    found = {label.name: Measured(new_tokens=[6], seconds=[6 / speed]) for label, speed in speeds.items()}
    rows = [row(label, found[label.name], 1, same_tokens=True, found=None) for label in speeds]
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


def test_bare_calls_are_of_the_asked_shapes(monkeypatch: pytest.MonkeyPatch, uncompiled: None) -> None:
    monkeypatch.setattr(limits_module, "LEAST_SECONDS", 0.0)
    target, draft = llama(0, layers=1), llama(1, layers=1)
    calls = BareCalls(target, draft, set())
    asked: list[tuple[tuple[int, ...], ...]] = []
    run = calls._verify

    def watched(*inputs: Tensor) -> object:
        asked.append((tuple(inputs[0].shape), tuple(inputs[0][:, 0].tolist()), tuple(inputs[1].shape)))
        return run(*inputs)

    monkeypatch.setattr(calls, "_verify", watched)
    some = [said("generate"), *(said("exact", length=n) for n in (5, 0))]
    for way in some[1:]:
        way.label = replace(way.label, backend="static")
    probes = Probes(calls, some, 2, 70)
    for way in some:
        probes(way)
    assert set(asked) == {((2, 1 + 6), (70, 70), (128,)), ((2, 1 + 1), (70, 70), (128,))}
    (drafted,), (plain,) = probes.found.values()
    assert plain.draft == plain.draft_alone == 0
    assert min(drafted.verify, drafted.draft, drafted.draft_alone, plain.verify) > 0


@pytest.mark.slow
def test_memory_is_that_of_a_process_that_decodes(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    target = llama(0, layers=1)
    target.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    job = Job(str(tmp_path), None, None, None, "float32", 3, 8, [[4, 5, 6], [7, 8]], 1)
    found = measure_memory(job)
    assert found.weights == sum(weight.nbytes for weight in target.parameters())
    assert found.caches == 2 * 2 * 64 * 8 * 4 * 2  # keys and values, heads, columns, width, bytes, rows
    assert found.ratio == (found.decoding - found.libraries) / (found.weights + found.caches)
    assert found.libraries > 0
    assert found.decoding > 0
