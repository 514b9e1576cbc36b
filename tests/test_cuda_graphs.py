"""Graphs of compiled forwards, replayed: what decoding gives with them is what it gives without.

On a CPU a recorder stands in for CUDA's that captures as CUDA does: operations with the tensors they had, run again on
those same tensors. No Python runs in a replay, so whatever was not copied into a buffer is what it was at the capture.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaForCausalLM

from judge_decoding import Exact, Judge, Round, decode
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.backends.static import cuda_graphs, draft, lm
from judge_decoding.decoding.backends.static.cuda_graphs import (
    LONGEST,
    PLAIN_CALLS,
    CudaRecorder,
    GraphedCall,
    Recorder,
)
from judge_decoding.decoding.backends.static.draft import CompiledDraft, StaticDraft
from judge_decoding.decoding.backends.static.graphs import DraftGraph, TargetGraph
from judge_decoding.decoding.backends.static.slots import KeysValues
from judge_decoding.decoding.backends.static.target import StaticTarget
from tiny import VOCAB_SIZE, greedy, llama, perturbed, random_head, request, run_uncompiled, tokens

PROMPTS = [[5], [1, 5, 6, 7, 8], [4 + i % 30 for i in range(70)], [9, 9, 9]]
BUDGETS = [30, 3, 50, 17]
GPU = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")])


class Graph(TorchDispatchMode):
    """The operations of a function, with their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.replays = 0
        self._kernels: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if op is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        given = op(*args, **(kwargs or {}))
        self._kernels.append((op, args, kwargs or {}, given))
        return given

    @torch.inference_mode()  # kernels know nothing of torch's modes
    def replay(self) -> None:
        self.replays += 1
        for op, args, kwargs, given in self._kernels:
            for old, new in zip(tree_leaves(given), tree_leaves(op(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():  # neither a view nor in place
                    old.copy_(new)


class Replays:
    """Records as CUDA would; remembers its graphs."""

    def __init__(self) -> None:
        self.graphs: list[Graph] = []

    def __call__(self, function: Callable[[], list[Tensor]]) -> tuple[Graph, list[Tensor]]:
        graph = Graph()
        with graph:
            outputs = function()
        self.graphs.append(graph)
        return graph, outputs

    @property
    def replayed(self) -> int:
        return sum(graph.replays for graph in self.graphs)


class Pair:
    """A target and a draft whose forwards are graphed, if there is a recorder."""

    def __init__(
        self, patch: pytest.MonkeyPatch, recorder: Recorder | None, most: int = 32, device: str = "cpu"
    ) -> None:
        model: Any = llama(0, layers=1, context=2048)
        self.model: LlamaForCausalLM = model.to(device)
        self.head = random_head(self.model, norm="after")
        if recorder is None:
            run_uncompiled(patch)
        else:
            patch.setattr(lm, "compile_target", lambda model, sources, *_, **few: GraphedCall(
                TargetGraph(model, sources, **few), recorder, most
            ))  # fmt: skip
            patch.setattr(draft, "compile_draft", lambda model, steps, size, *_, **few: GraphedCall(
                DraftGraph(model, steps, size, **few), recorder, most
            ))  # fmt: skip
        self._target = StaticTarget(self.model, [HiddenSource()])
        self._draft = CompiledDraft(perturbed(self.model, 0.05), VOCAB_SIZE)

    def rounds(self, judge: float | None, budgets: Sequence[int] = BUDGETS) -> list[list[Round]]:
        """Of a batch whose rows have other lengths and leave at other times."""
        rule = Exact() if judge is None else Judge(self.head, judge)
        asked = [
            request(self.model, prompt, rule, num_draft_tokens=3 + i, max_new_tokens=budget)
            for i, (prompt, budget) in enumerate(zip(PROMPTS, budgets, strict=False))
        ]
        found: list[list[Round]] = [[] for _ in asked]
        for row, event in decode(self._target, StaticDraft(self._draft), asked):
            found[row].append(event)
        return found


def bare(rounds: list[list[Round]]) -> list[list[tuple[object, ...]]]:
    return [[(r.draft_ids, r.token_ids, r.causes, r.target_ids) for r in row] for row in rounds]


def scores(rounds: list[list[Round]]) -> list[float]:
    return [score for row in rounds for r in row for score in r.scores or ()]


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("most", [32, 2], ids=["all graphs kept", "most of them evicted"])
def test_replays_decode_what_plain_calls_decode(monkeypatch: pytest.MonkeyPatch, most: int, device: str) -> None:
    """Batches that shrink, one after the other: every one has caches of its own, at other addresses."""
    plain = Pair(monkeypatch, None, device=device)
    recorder = Replays() if device == "cpu" else CudaRecorder(torch.device(device))
    graphed = Pair(monkeypatch, recorder, most, device)
    for judge in (0.5, None):
        expected, found = plain.rounds(judge), graphed.rounds(judge)
        assert bare(found) == bare(expected)
        assert scores(found) == pytest.approx(scores(expected), abs=1e-6)
    for row, prompt, budget in zip(graphed.rounds(None), PROMPTS, BUDGETS, strict=True):
        assert tokens(row) == greedy(graphed.model, prompt, budget)
    if isinstance(recorder, Replays):
        assert recorder.replayed > 10


def test_a_cache_that_grows_is_captured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draft's, which does not know how long an answer will be."""
    monkeypatch.setattr(draft, "COLUMNS", 64)
    recorder = Replays()
    graphed = Pair(monkeypatch, recorder)
    (row,) = graphed.rounds(None, [120])
    assert tokens(row) == greedy(graphed.model, PROMPTS[0], 120)
    assert recorder.replayed > 2 * len(recorder.graphs)


@pytest.mark.parametrize(
    "fault", ["the cache is no part of the key", "inputs are not copied", "outputs are not copied"]
)
def test_these_comparisons_would_see_it(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    recorder = Replays()
    graphed = Pair(monkeypatch, recorder)
    if fault == "the cache is no part of the key":
        monkeypatch.setattr(cuda_graphs, "_key", lambda inputs: tuple(i.shape for i in inputs if isinstance(i, Tensor)))
    elif fault == "inputs are not copied":
        monkeypatch.setattr(cuda_graphs._Graph, "run", lambda self, _: (self.graph.replay(), self.outputs)[1])
    else:

        def run(self: Any, inputs: Sequence[Any]) -> list[Tensor]:
            for buffer, given in zip(self.buffers, cuda_graphs._small(inputs), strict=True):
                buffer.copy_(given)
            self.graph.replay()
            return self.outputs

        monkeypatch.setattr(cuda_graphs._Graph, "run", run)
    found = [tokens(row) for _ in range(2) for row in graphed.rounds(None)]
    assert recorder.replayed
    assert found != 2 * [greedy(graphed.model, prompt, budget) for prompt, budget in zip(PROMPTS, BUDGETS, strict=True)]


def write(ids: Tensor, start: Tensor, cache: KeysValues) -> list[Tensor]:
    """Write the ids into the cache; new ids, the next start and the cache's sum."""
    keys, values = cache[0]
    keys.index_copy_(2, start + torch.arange(ids.shape[1]), ids[:, None, :, None].float())
    values.copy_(-keys)
    return [2 * ids + 1, start + ids.shape[1], keys.sum((1, 2, 3))]


def cache_of(columns: int = 1024) -> KeysValues:
    return [(torch.zeros(1, 1, columns, 1), torch.zeros(1, 1, columns, 1))]


def chain(call: Callable[..., list[Tensor]], count: int, cache: KeysValues, calls: int) -> list[list[int]]:
    """Calls of which each reads what the one before gave; all they gave, looked at after the last."""
    ids, start, given = torch.arange(1, count + 1)[None], torch.zeros(1, dtype=torch.long), []
    for _ in range(calls):
        ids, start, total = call(ids, start, cache)
        given.append([*ids[0], start, total])
    return [[int(number) for number in numbers] for numbers in given]


def test_what_comes_once_or_is_long_is_not_captured() -> None:
    recorder = Replays()
    graphed, cache = GraphedCall(write, recorder), cache_of()
    for count in range(2, 12):
        chain(graphed, count, cache, PLAIN_CALLS)
    chain(graphed, 1 + LONGEST + 1, cache, 7)
    assert not recorder.graphs
    for graphs, count in enumerate((4, 1 + LONGEST), 1):
        other = cache_of()
        assert chain(graphed, count, cache_of(), 6) == chain(write, count, other, 6)
        assert len(recorder.graphs) == graphs


def test_the_same_addresses_in_another_shape_are_another_key() -> None:
    memory, values, recorder = torch.zeros(128), torch.zeros(1, 1, 128, 1), Replays()
    graphed = GraphedCall(write, recorder)
    for columns in (128, 64):
        cache = [(memory[:columns].view(1, 1, columns, 1), values[:, :, :columns])]
        memory.zero_()
        found = chain(graphed, 3, cache, 5)
        memory.zero_()
        assert found == chain(write, 3, cache, 5)
    assert len(recorder.graphs) == 2


def test_the_least_recently_used_goes() -> None:
    recorder = Replays()
    graphed, cache = GraphedCall(write, recorder, most=2), cache_of()
    for count in (2, 3):
        chain(graphed, count, cache, PLAIN_CALLS + 1)
    chain(graphed, 2, cache, 1)  # now 3 is the older one
    chain(graphed, 4, cache, PLAIN_CALLS + 1)
    chain(graphed, 2, cache, 1)
    assert [graph.replays for graph in recorder.graphs] == [3, 1, 1]
    chain(graphed, 3, cache, PLAIN_CALLS + 1)  # it begins anew
    assert len(recorder.graphs) == 4


def test_where_capturing_fails_it_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    tries = []

    def waits(ids: Tensor, start: Tensor, cache: KeysValues) -> list[Tensor]:
        tries.append(int(start))  # for the device
        return write(ids, start, cache)

    caplog.set_level(logging.WARNING)
    assert chain(GraphedCall(waits, Replays()), 3, cache_of(), 9) == chain(write, 3, cache_of(), 9)
    assert len(tries) == 9
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == "Running without CUDA graphs: operation not permitted when stream is capturing"


def test_graphs_made_in_inference_mode_serve_outside_of_it() -> None:
    recorder = Replays()
    graphed, cache = GraphedCall(write, recorder), cache_of()
    with torch.inference_mode():
        inside = chain(graphed, 3, cache, PLAIN_CALLS + 1)
    cache[0][0].zero_()
    assert chain(graphed, 3, cache, PLAIN_CALLS + 1) == inside
    assert [graph.replays for graph in recorder.graphs] == [PLAIN_CALLS + 2]
