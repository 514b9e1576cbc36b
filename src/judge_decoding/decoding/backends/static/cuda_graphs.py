"""CUDA graphs: launch all kernels of a compiled forward pass by one call, as launching them one by one costs more.

Not yet run on a GPU: written from torch's documentation and source, and tested with stand-ins for its CUDA classes. An
AOTInductor package can be captured if it was loaded with ``run_single_threaded=True`` (pytorch/pytorch#148601).

A graph replays kernels on fixed addresses and sizes. So there is one graph for each combination of input shapes, its
small inputs are copied into its own buffers, and the KV cache, which is written in place, is identified by its
addresses: a new or grown cache needs a new capture. The next replay overwrites a replay's outputs, so callers get
copies: drafts are made by several calls of one shape, and their tokens are joined afterwards.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from judge_decoding.decoding.backends.static.slots import KeysValues

logger = logging.getLogger(__name__)

MOST_GRAPHS = 32
"""The number of graphs kept, by least recent use: each holds its outputs, up to a few MB of logits."""
LONGEST = 128
"""Calls with more tokens per row are not captured: for a prompt, kernel launches are a small part of the cost."""
PLAIN_CALLS = 2
"""The number of plain calls before a capture, which costs a few forward passes; they also serve as warm-up."""


Recorder = Callable[[Callable[[], list[Tensor]]], tuple[Any, list[Tensor]]]
"""Captures a function; returns a `torch.cuda.CUDAGraph`, and the tensors into which its replay writes the results."""


@dataclass(frozen=True, slots=True)
class _Graph:
    graph: Any
    buffers: list[Tensor]
    outputs: list[Tensor]

    def run(self, inputs: Sequence[Tensor | KeysValues]) -> list[Tensor]:
        for buffer, given in zip(self.buffers, _small(inputs), strict=True):
            buffer.copy_(given)
        self.graph.replay()
        return [output.clone() for output in self.outputs]


class GraphedCall:
    """A compiled forward pass whose repeated calls are captured. One stream, one call at a time.

    Args:
        call: the forward pass. Its first input is a position and ids [B, 1 + T]; lists among its inputs are caches.
        record: captures a call.
        most: how many shapes are remembered, captured or not.
    """

    def __init__(self, call: Callable[..., list[Tensor]], record: Recorder, most: int = MOST_GRAPHS) -> None:
        self._call, self._most = call, most
        self._record: Recorder | None = record
        # The graph of each key, or its number of plain calls so far; the least recently used first.
        self._known: OrderedDict[Hashable, _Graph | int] = OrderedDict()

    def __call__(self, *inputs: Tensor | KeysValues) -> list[Tensor]:
        """Return the results of the forward pass; nothing overwrites them later."""
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
        with torch.inference_mode(False):  # so that the buffers can be written in any mode
            small = [torch.zeros(given.shape, dtype=given.dtype, device=given.device) for given in _small(inputs)]
        for buffer, given in zip(small, _small(inputs), strict=True):
            buffer.copy_(given)
        buffers = iter(small)
        fixed = [next(buffers) if isinstance(given, Tensor) else given for given in inputs]
        try:
            # Writes to the cache during capture are harmless: the replay writes the same values again.
            graph, outputs = record(lambda: self._call(*fixed))
        except RuntimeError as error:  # raised by CUDA and AOTInductor
            logger.warning("Running without CUDA graphs: %s", str(error).strip().split("\n")[0])
            self._record = None
            self._known.clear()
            return None
        return _Graph(graph, small, outputs)


class CudaRecorder:
    """Captures on a CUDA device. All its graphs share memory, as they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, function: Callable[[], list[Tensor]]) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
        """Run ``function`` once on a side stream, as libraries initialise at the first call; then capture it.

        Raises `RuntimeError` if it does something that cannot be captured, such as synchronising with the device.
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
    """Return the shapes and the addresses of every cache layer: a new cache may reuse the first layer's address only.

    A graph does not keep alive the cache it was captured with; a caller whose key matches owns that memory.
    """
    parts: list[Hashable] = []
    for given in inputs:
        if isinstance(given, Tensor):
            parts.append(given.shape)
        else:
            parts.append(given[0][0].shape)
            parts.extend(values.data_ptr() for layer in given for values in layer)
    return tuple(parts)
