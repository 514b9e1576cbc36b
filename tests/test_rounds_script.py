"""What benchmarks/rounds.py and those beside it measure with: full rounds, bare calls, floors, memory. Never a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

import limits as limits_module
import memory
import rounds
from judge_decoding import CostOptimal, Exact, JudgeDecoder, JudgeHead
from judge_decoding.core.rounds import Round, Seconds
from judge_decoding.decoding.lengths import Fixed
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.bench.measure import measure
from judge_decoding.evaluation.bench.plan import BEST, POLICY, Models
from judge_decoding.models.first_layers import first_layers
from limits import Bare, BareCalls, Machine, Shape, Work, efficiency, measure_machine, round_work, timed, work
from memory import Job, measure_memory
from rounds import Clock, Steady, Timed, Watched, clocked, limits, measured, steady
from tiny import llama

PROMPTS = [torch.tensor(ids) for ids in ([4, 5, 6], [7, 8], [9, 10, 11, 12], [13, 14])]
BUDGET = 16
MACHINE = Machine(1e10, 2e11)
BENCHMARKS = Path(memory.__file__).parent


@pytest.fixture(scope="module")
def models(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, draft: PreTrainedModel, head: JudgeHead
) -> Models:
    return Models(JudgeDecoder(target, tokenizer, draft, head, num_draft_tokens=3), BUDGET)


class Calls:
    """Bare calls that take no time; it knows what was asked."""

    def __init__(self) -> None:
        self.shapes: list[Shape] = []

    def measure(self, shape: Shape) -> Bare:
        self.shapes.append(shape)
        return Bare(1.0, 0.5, 0.75)


def test_bare_calls_are_measured_behind_each_batch_of_our_own_ways(models: Models) -> None:
    contenders: list[Any] = [models.generate(), models.plain(), models.exact(2), models.policy(3)]
    calls: Any = Calls()
    pair = (models.decoder.target, models.draft)
    rows = measured(contenders, PROMPTS, (), pair, calls, MACHINE, context=70, batch_size=2, repetitions=2)
    plain, exact = Shape(2, 0, 70), Shape(2, 2, 70)
    assert calls.shapes == [plain, plain, *[exact] * 4, plain, plain]  # no warm-up; who begins changes
    assert [row["limits"] is None for row in rows] == [True, False, False, True]
    assert [row["name"] for row in rows] == [way.label.name for way in contenders]
    assert contenders[3].label.note == POLICY  # its rounds have no one shape


def test_the_clock_changes_nothing(models: Models) -> None:
    clock = Clock(Fixed(3))
    assert [clock.next() for _ in range(4)] == [3] * 4
    assert len(clock.laps) == 3
    plain = models.decoder.generate(PROMPTS[0][None], BUDGET, rule=Exact(), draft_length=CostOptimal)
    told = clocked(models.policy(3), PROMPTS[:1])
    assert told.tokens == (plain.token_ids,)
    assert [len(laps) for laps in told.laps] == [len(told.rounds[0]) - 1]
    assert told.context == (3,)


def event(drafted: int, kept: int, verify: float = 1.0) -> Round:
    return Round(
        tuple(range(drafted)), tuple(range(kept)), (), (), seconds=Seconds(draft=0.5, verify=verify, rule=0.25)
    )


def test_full_rounds_are_those_with_the_whole_draft_and_all_rows() -> None:
    first = (event(4, 2, 9.0), event(4, 3, 1.0), event(4, 1, 3.0), event(2, 1), event(4, 5, 7.0))
    second = (event(4, 1, 9.0), event(4, 5, 1.0), event(4, 1, 3.0))
    batch = Timed(((), ()), 1.0, 5, (first, second), (10, 20), ((90.0, 2.0, 4.0, 8.0), (90.0, 2.0)))
    # The first rounds read the prompt, the second row's last has no next one, and so on.
    assert steady(batch, 4) == Steady(2.0, Seconds(0.5, 1.0, 0.25, 0.0), (12 + 21) / 2, 1)
    single = Timed(((),), 1.0, 5, (first,), (10,), ((90.0, 2.0, 4.0, 8.0),))
    assert steady(single, 4) == Steady(3.0, Seconds(0.5, 2.0, 0.25, 0.0), (12 + 15) / 2, 2)
    assert steady(single, 3) is None


def test_rounds_of_a_smaller_last_batch_are_left_aside(models: Models) -> None:
    """Its bare calls are those of a whole batch."""
    way = Watched(models.exact(3, BEST), Shape(2, 3, 0), None, warm_up=2)
    measure([way], PROMPTS[1:], (), batch_size=2, repetitions=2)
    assert [one is None for one in way.steady] == [False, True] * 2
    fewer = Watched(models.exact(3, BEST), Shape(3, 3, 0), None, warm_up=1)
    measure([fewer], PROMPTS[1:], (), batch_size=5, repetitions=1)
    assert all(fewer.steady)


def test_efficiency_is_bare_calls_over_the_round() -> None:
    assert efficiency(8, Bare(verify=4.0, draft=0.5), lap=10.0) == 0.8
    assert efficiency(0, Bare(verify=4.0), lap=5.0) == 0.8


def test_efficiency_pairs_a_batch_with_what_was_measured_behind_it() -> None:
    parts = Seconds(1.0, 2.0, 0.5, 0.5)
    own = [Steady(4.0, parts, 30.0, 7), None, Steady(8.0, parts, 32.0, 9)]
    bare = [Bare(1.0, 0.5, 0.75), Bare(9.0, 9.0, 9.0), Bare(2.0, 1.0, 1.5)]  # the second stands beside no full round
    found = limits(own, 4, bare, Work(100.0, 50.0), Machine(10.0, 25.0))
    assert found is not None
    assert found.efficiency == 0.75  # (4 * 0.5 + 1) / 4 and (4 * 1 + 2) / 8
    assert (found.t_verify, found.t_draft, found.t_draft_alone) == (2.0, 1.0, 1.5)
    assert (found.round, found.context, found.rounds) == (6.0, 31.0, 16)
    assert (found.bytes_seconds, found.flops_seconds) == (10.0, 2.0)
    assert found.parts == {"draft": 1.0, "verify": 2.0, "rule": 0.5, "overhead": 0.5}
    assert limits([None], 0, [], Work(1, 1), Machine(1, 1)) is None


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


@pytest.mark.slow
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
    drafted, plain = (calls.measure(Shape(2, count, 70)) for count in (5, 0))
    assert set(asked) == {((2, 1 + 6), (70, 70), (128,)), ((2, 1 + 1), (70, 70), (128,))}
    assert plain.draft == plain.draft_alone == 0
    assert min(drafted.verify, drafted.draft, drafted.draft_alone, plain.verify) > 0


UNCOMPILED = """
from pytest import MonkeyPatch
from judge_decoding.decoding.backends.static import lm
from judge_decoding.decoding.backends.static.graphs import TargetGraph
import memory

def compiled(model, sources, progress, folder, **few):
    return TargetGraph(model, sources, **few)

MonkeyPatch().setattr(lm, "compile_target", compiled)
memory.main()
"""
"""Instead of the script: nothing is compiled."""


@pytest.mark.slow
def test_memory_is_that_of_a_process_that_decodes(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "script.py").write_text(UNCOMPILED)
    monkeypatch.setattr(memory, "__file__", str(tmp_path / "script.py"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(BENCHMARKS), os.environ.get("PYTHONPATH")])))
    target = llama(0, layers=1)
    target.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    job = Job(str(tmp_path), None, None, "float32", 3, 8, [[4, 5, 6], [7, 8]], 1)
    found = measure_memory(job)
    assert found.weights == sum(weight.nbytes for weight in target.parameters())
    assert found.caches == 2 * 2 * 64 * 8 * 4 * 2  # keys and values, heads, columns, width, bytes, rows
    assert found.ratio == (found.decoding - found.libraries) / (found.weights + found.caches)
    assert found.libraries > 0
    assert found.decoding > 0


def test_after_compiling_another_process_is_measured(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(_: JudgeDecoder, progress: Callable[[str], None]) -> list[str]:
        progress("Compiling")
        return []

    again = memory.Memory(1, 2, 3, 4, 5, 6.0)
    monkeypatch.setattr(JudgeDecoder, "compile", compiled)
    monkeypatch.setattr(memory, "measure_memory", lambda job: again)
    assert memory.run(memory.Job(str(folders["target"]), None, None, "float32", 3, 8, [[4]], 1)) is again


def test_shared_weights_count_once_and_caches_to_their_end(folders: dict[str, Path]) -> None:
    job = memory.Job(str(folders["target"]), None, None, "float32", 3, 8, [[4, 5, 6], [7, 8]], 1)
    decoder = JudgeDecoder.from_pretrained(job.target)
    weights = memory.weight_bytes(decoder)
    assert weights == sum(weight.nbytes for weight in decoder.target.parameters())
    decoder.draft = first_layers(decoder.target, 1)
    assert memory.weight_bytes(decoder) == weights  # shared ones once
    # Keys and values, heads, columns, width, bytes, rows: two layers of 64 columns, and one of the draft's 512.
    assert memory.cache_bytes(decoder, job) == 2 * 2 * 8 * 4 * 2 * (2 * 64 + 512)


def test_a_process_that_fails_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    monkeypatch.setattr(memory, "__file__", str(script))
    job = memory.Job("/no/model", None, None, "float32", 3, 8, [[4]], 1)
    for code, reason in (
        ("raise ValueError('Cannot load the tokenizer /no/model')", "ValueError: Cannot load the tokenizer /no/model"),
        ("raise SystemExit(1)", "it gave no reason"),
    ):
        script.write_text(code)
        with pytest.raises(JudgeDecodingError, match=f"failed: {reason}$"):
            memory.measure_memory(job)


def test_the_script_on_a_tiny_pair(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uncompiled: None
) -> None:
    monkeypatch.setattr(limits_module, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(rounds, "measure_machine", lambda *_: MACHINE)
    found = memory.Memory(400_000_000, 900_000_000, 1_000_000_000, 500_000_000, 50_000_000, 600 / 550)
    monkeypatch.setattr(rounds, "measure_memory", lambda job: found)
    told = rounds.main([
        "--target", str(folders["target"]), "--draft", str(folders["draft"]), "--judge", str(folders["judge"]),
        "--lengths", "2", "--prompts", "2", "--repetitions", "1", "--max-new-tokens", "24", "--threads", "1",
        "--memory", "--out", str(tmp_path),
    ])  # fmt: skip
    assert [row["name"] for row in told["rows"]] == ["plain, static", "exact, static, M=2", "judge, static, M=2"]
    assert not any(row["unlike"] for row in told["rows"] if row["same_tokens"])
    for row in told["rows"]:
        known = row["limits"]
        assert known["efficiency"] > 0
        assert known["bytes_seconds"] == known["bytes"] / MACHINE.bandwidth
        assert known["flops_seconds"] == known["flops"] / MACHINE.flops
    assert json.loads((tmp_path / "rounds.json").read_text()) == json.loads(json.dumps(told))
    text = (tmp_path / "rounds.md").read_text()
    assert "| way | tokens per second | round | draft | verify | rule | overhead | bare draft | bare verify |" in text
    assert text.count("\n| ") == 3 + 2  # and the titles, and the line below them
    assert "10.0 GB/s" in text
    assert "1.09 times weights (500.0 MB) and caches (50.0 MB)" in text
