"""CUDA graphs without a GPU: what is captured when, with a stand-in whose replays overwrite the same tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from judge_decoding.decoding.backends.static.cuda_graphs import LONGEST, PLAIN_CALLS, CudaRecorder, GraphedCall
from judge_decoding.decoding.backends.static.graphs import KeysValues


class Graph:
    """Runs the function again on what it was captured with, into the tensors that came out then."""

    def __init__(self, function: Callable[[], list[Tensor]]) -> None:
        self._function, self.outputs, self.replays = function, function(), 0

    @torch.inference_mode()  # kernels know nothing of torch's modes
    def replay(self) -> None:
        self.replays += 1
        for output, value in zip(self.outputs, self._function(), strict=True):
            output.copy_(value)


class Recorder:
    """Keeps the graphs it made."""

    def __init__(self) -> None:
        self.graphs: list[Graph] = []

    def __call__(self, function: Callable[[], list[Tensor]]) -> tuple[Graph, list[Tensor]]:
        self.graphs.append(Graph(function))
        return self.graphs[-1], self.graphs[-1].outputs


class Forward:
    """Writes the ids into the cache at their start, as a draft would; gives new ids, the next start and the first sum.

    Attributes:
        seen: the addresses of the ids of each call.
    """

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, ids: Tensor, start: Tensor, cache: KeysValues) -> list[Tensor]:
        self.seen.append(ids.data_ptr())
        columns = start[:, None] + torch.arange(ids.shape[1])
        for keys, values in cache:
            for row in range(len(ids)):
                keys[row, 0, columns[row], 0] = ids[row].float()
                values[row, 0, columns[row], 0] = -ids[row].float()
        return [2 * ids + 1, start + ids.shape[1], cache[0][0].sum((1, 2, 3))]


def cache_of(rows: int = 1, columns: int = 256, layers: int = 2) -> KeysValues:
    return [(torch.zeros(rows, 1, columns, 1), torch.zeros(rows, 1, columns, 1)) for _ in range(layers)]


def chain(call: Callable[..., list[Tensor]], ids: Tensor, cache: KeysValues, calls: int) -> list[list[Tensor]]:
    """Calls of which each reads what the one before gave; all they gave, looked at after the last."""
    start, given = torch.zeros(len(ids), dtype=torch.long), []
    for _ in range(calls):
        ids, start, total = call(ids, start, cache)
        given.append([ids, start, total])
    return given


def ids_of(rows: int = 1, count: int = 3) -> Tensor:
    return torch.arange(1, rows * count + 1).view(rows, count)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_a_chain_of_calls_gives_what_it_gives_without_graphs(recorder: Recorder) -> None:
    plain_cache, cache = cache_of(2), cache_of(2)
    expected = chain(Forward(), ids_of(2), plain_cache, 8)
    forward = Forward()
    found = chain(GraphedCall(forward, recorder), ids_of(2), cache, 8)
    for own, other in zip(found, expected, strict=True):
        for a, b in zip(own, other, strict=True):
            assert torch.equal(a, b)
    for own, other in zip(cache, plain_cache, strict=True):
        assert torch.equal(own[0], other[0])
        assert torch.equal(own[1], other[1])
    assert [graph.replays for graph in recorder.graphs] == [8 - PLAIN_CALLS]
    assert len(set(forward.seen[PLAIN_CALLS:])) == 1  # its own buffer


def test_what_was_handed_in_is_only_read(recorder: Recorder) -> None:
    graphed, ids, start, cache = (
        GraphedCall(Forward(), recorder),
        ids_of(),
        torch.zeros(1, dtype=torch.long),
        cache_of(),
    )
    for number in range(5):
        ids.fill_(number)
        graphed(ids, start, cache)
        assert ids.tolist() == [[number] * 3]
        assert start.tolist() == [0]
        assert cache[1][0][0, 0, :4, 0].tolist() == [number] * 3 + [0]


def test_one_graph_for_each_shape_and_each_cache(recorder: Recorder) -> None:
    graphed, cache = GraphedCall(Forward(), recorder), cache_of(2)
    for _ in range(2):
        chain(graphed, ids_of(2, 3), cache, 5)
        chain(graphed, ids_of(2, 4), cache, 5)
        chain(graphed, ids_of(1, 3), [(keys[:1], values[:1]) for keys, values in cache], 5)  # a row has left
    assert len(recorder.graphs) == 3
    other = cache_of(2)
    half_new = [cache[0], other[1]]  # its first layer is where it was
    chain(graphed, ids_of(2, 3), half_new, 5)
    assert len(recorder.graphs) == 4
    assert other[1][0].any()
    longer = [(torch.nn.functional.pad(k, (0, 0, 0, 64)), torch.nn.functional.pad(v, (0, 0, 0, 64))) for k, v in cache]
    chain(graphed, ids_of(2, 3), longer, 5)
    assert len(recorder.graphs) == 5


def test_the_same_addresses_in_another_shape_are_another_key(recorder: Recorder) -> None:
    memory = torch.zeros(2 * 64)
    wide = [(memory[:128].view(1, 1, 128, 1), torch.zeros(1, 1, 128, 1))]
    low = [(memory[:64].view(1, 1, 64, 1), wide[0][1])]
    graphed = GraphedCall(Forward(), recorder)
    for cache in (wide, low):
        chain(graphed, ids_of(), cache, 4)
    assert len(recorder.graphs) == 2


def test_what_comes_once_or_is_long_is_not_captured(recorder: Recorder) -> None:
    forward = Forward()
    graphed, cache = GraphedCall(forward, recorder), cache_of(columns=1024)
    for count in range(1, 12):
        chain(graphed, ids_of(1, count), cache, PLAIN_CALLS)
    assert not recorder.graphs
    assert len(forward.seen) == 11 * PLAIN_CALLS
    chain(graphed, ids_of(1, 1 + LONGEST + 1), cache, 7)
    assert not recorder.graphs
    chain(graphed, ids_of(1, 4), cache, 1)
    assert len(recorder.graphs) == 1
    chain(graphed, ids_of(1, 1 + LONGEST), cache, PLAIN_CALLS + 1)
    assert len(recorder.graphs) == 2


def test_the_least_recently_used_goes(recorder: Recorder) -> None:
    graphed, cache = GraphedCall(Forward(), recorder, most=2), cache_of()
    for count in (1, 2):
        chain(graphed, ids_of(1, count), cache, PLAIN_CALLS + 1)
    chain(graphed, ids_of(1, 1), cache, 1)  # now 2 is the older one
    chain(graphed, ids_of(1, 3), cache, PLAIN_CALLS + 1)
    assert len(recorder.graphs) == 3
    chain(graphed, ids_of(1, 1), cache, 1)
    assert len(recorder.graphs) == 3
    assert recorder.graphs[0].replays == 3
    chain(graphed, ids_of(1, 2), cache, PLAIN_CALLS)  # it begins anew
    assert len(recorder.graphs) == 3
    chain(graphed, ids_of(1, 2), cache, 1)
    assert len(recorder.graphs) == 4


def test_where_capturing_fails_it_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    tries = []

    def failing(function: Callable[[], list[Tensor]]) -> tuple[Graph, list[Tensor]]:
        tries.append(function())
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    caplog.set_level(logging.WARNING)
    cache, plain_cache = cache_of(), cache_of()
    found = chain(GraphedCall(Forward(), failing), ids_of(), cache, 9)
    expected = chain(Forward(), ids_of(), plain_cache, 9)
    assert torch.equal(found[-1][0], expected[-1][0])
    assert torch.equal(cache[0][0], plain_cache[0][0])
    assert len(tries) == 1
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == "Running without CUDA graphs: operation not permitted when stream is capturing"


def test_graphs_made_in_inference_mode_serve_outside_of_it(recorder: Recorder) -> None:
    graphed = GraphedCall(lambda ids, start, cache: [ids + start[:, None], cache[0][0]], recorder)
    cache, start = cache_of(), torch.ones(1, dtype=torch.long)
    with torch.inference_mode():
        for _ in range(PLAIN_CALLS + 1):
            graphed(ids_of(), start, cache)
    assert len(recorder.graphs) == 1
    graphed(ids_of() + 5, start, cache)
    assert recorder.graphs[0].replays == 2


def test_capturing_warms_up_aside_and_shares_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Stream:
        def __init__(self, name: str = "aside") -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            told.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        told.append(f"on {chosen.name}")
        yield
        told.append("back")

    @contextmanager
    def graph(_: object, pool: object, stream: Stream) -> Iterator[None]:
        told.append(f"capture on {stream.name} in {pool}")
        yield
        told.append("captured")

    pools = iter(["pool 1", "pool 2"])
    monkeypatch.setattr(torch.cuda, "device", lambda device: stream(Stream(str(device))))
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream("current"))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(pools))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: "a graph")
    monkeypatch.setattr(torch.cuda, "graph", graph)
    recorder = CudaRecorder(torch.device("cuda:1"))

    def function() -> list[Tensor]:
        told.append("run")
        return []

    once = [
        "on cuda:1", "aside waits for current", "on aside", "run", "back", "current waits for aside",
        "capture on aside in pool 1", "run", "captured", "back",
    ]  # fmt: skip
    assert recorder(function) == ("a graph", [])
    assert told == once
    recorder(function)
    assert told == 2 * once
