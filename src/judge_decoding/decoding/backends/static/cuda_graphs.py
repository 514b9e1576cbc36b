"""CUDA graphs: all kernels of a compiled forward launched by one call, where launching them one by one costs more.

Not yet run on a GPU: written from torch's documentation and source, and tested with stand-ins for its CUDA classes. An
AOTInductor package can be captured if it was loaded with ``run_single_threaded=True`` (pytorch/pytorch#148601).

A graph replays kernels on fixed addresses and sizes. So there is one for each combination of input shapes, its small
inputs are copied into buffers of its own, and the cache, which is written in place, counts by its addresses: one that
has grown or is new needs a new capture. What a replay gives lies in the graph's memory until the next one, so that
callers get copies: drafts are made by several calls of one shape, and their tokens are joined afterwards.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from judge_decoding.decoding.backends.static.graphs import KeysValues

logger = logging.getLogger(__name__)

MOST_GRAPHS = 32
"""Graphs that are kept, the least recently used ones go: each holds its outputs, up to a few MB of logits."""
LONGEST = 128
"""Tokens a row above which a call is not captured: reading a prompt launches few kernels for its work."""
PLAIN_CALLS = 2
"""A capture costs some forwards, so that only what comes again is captured; these calls are its warm-up, too."""


class Replayable(Protocol):
    """A captured graph."""

    def replay(self) -> None:
        """Run its kernels."""
        ...


Recorder = Callable[[Callable[[], list[Tensor]]], tuple[Replayable, list[Tensor]]]
"""Captures a function: a graph, and the tensors that each of its replays overwrites with the function's results."""


@dataclass(frozen=True, slots=True)
class _Graph:
    """A graph, the buffers it reads, and what it writes."""

    graph: Replayable
    buffers: list[Tensor]
    outputs: list[Tensor]

    def run(self, inputs: Sequence[Tensor | KeysValues]) -> list[Tensor]:
        for buffer, given in zip(self.buffers, _small(inputs), strict=True):
            buffer.copy_(given)
        self.graph.replay()
        return [output.clone() for output in self.outputs]


class GraphedCall:
    """A compiled forward whose calls are captured when they come again. One stream, one call at a time.

    Args:
        call: the forward. Its first input is a position and ids [B, 1 + T]; lists among its inputs are caches.
        record: how it is captured.
        most: how many shapes are remembered, captured or not.
    """

    def __init__(self, call: Callable[..., list[Tensor]], record: Recorder, most: int = MOST_GRAPHS) -> None:
        self._call, self._most = call, most
        self._record: Recorder | None = record
        # The graph of each key, or how often it has come without one; the least recently used first.
        self._known: OrderedDict[Hashable, _Graph | int] = OrderedDict()

    def __call__(self, *inputs: Tensor | KeysValues) -> list[Tensor]:
        """What the forward gives; nothing overwrites it later."""
        if self._record is None or _small(inputs)[0].shape[1] - 1 > LONGEST:
            return self._call(*inputs)
        key = _key(inputs)
        known: _Graph | int | None = self._known.pop(key, 0)
        if isinstance(known, int):
            known = self._capture(self._record, inputs) if known == PLAIN_CALLS else known + 1
        if known is None:
            return self._call(*inputs)
        self._known[key] = known
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return known.run(inputs) if isinstance(known, _Graph) else self._call(*inputs)

    def _capture(self, record: Recorder, inputs: Sequence[Tensor | KeysValues]) -> _Graph | None:
        with torch.inference_mode(False):  # so that it may be written in any mode
            small = [torch.zeros(given.shape, dtype=given.dtype, device=given.device) for given in _small(inputs)]
        for buffer, given in zip(small, _small(inputs), strict=True):
            buffer.copy_(given)
        buffers = iter(small)
        fixed = [next(buffers) if isinstance(given, Tensor) else given for given in inputs]
        try:
            # What it writes into the cache is what the replay after it writes again.
            graph, outputs = record(lambda: self._call(*fixed))
        except RuntimeError as error:  # CUDA's and AOTInductor's own
            logger.warning("Running without CUDA graphs: %s", str(error).strip().split("\n")[0])
            self._record = None
            self._known.clear()
            return None
        return _Graph(graph, small, outputs)


class CudaRecorder:
    """Captures on a CUDA device. All its graphs share memory, as none of them runs while another does.

    Args:
        device: where the models are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, function: Callable[[], list[Tensor]]) -> tuple[Replayable, list[Tensor]]:
        """Run ``function`` once on a stream aside, as libraries set themselves up at the first call; then capture it.

        Raises:
            RuntimeError: it does what cannot be captured, such as waiting for the device.
        """
        with torch.cuda.device(self._device):
            self._stream = self._stream or torch.cuda.Stream()
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                function()
            current.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                outputs = function()
        return graph, outputs


def _small(inputs: Sequence[Tensor | KeysValues]) -> list[Tensor]:
    return [given for given in inputs if isinstance(given, Tensor)]


def _key(inputs: Sequence[Tensor | KeysValues]) -> Hashable:
    """The shapes, and where every layer of the cache is: a new one may have its first layer where the last one had it.

    A graph does not keep the cache alive it was captured with; whoever hands in these addresses holds what is there.
    """
    parts: list[Hashable] = []
    for given in inputs:
        if isinstance(given, Tensor):
            parts.append(given.shape)
        else:
            parts.append(given[0][0].shape)
            parts.extend(values.data_ptr() for layer in given for values in layer)
    return tuple(parts)
